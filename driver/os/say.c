/*
 * say.c - lines for people. Names of files, labels and words of plug-ins come from outside: a control character in
 * one of them would be obeyed by a terminal, and a newline would begin a line that the program never said.
 */
#include "driver/os/os.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void put_line(FILE *to, const char *lead, const char *format, va_list args)
{
    char *text = NULL;
    mb_text shown = {0};
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    mb_text_visible(&shown, text ? text : format, "");
    fprintf(to, "%s%s\n", lead, shown.data && !shown.failed ? shown.data : "");
    mb_text_free(&shown);
    free(text);
}

void mb_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_line(stderr, "harness: ", format, args);
    va_end(args);
}

void mb_print(FILE *to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_line(to, "", format, args);
    va_end(args);
}
