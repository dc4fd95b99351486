/*
 * test_template.c - chat templates: constructs with the text that Jinja 3.1 writes for them (set up as
 * transformers 5.24 does), templates of the shapes that public checkpoints have, what must be refused, the bounds,
 * and the files of a folder.
 *
 * The expected texts are Jinja's own (tests/model/templates.py --golden); with --render the program reads one JSON
 * object a line and writes what it renders, for tests/model/check_templates.sh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/template/chat.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Renders with the variables of a JSON object. */
static int render(const char *source, const cJSON *variables, size_t input, mb_text *out, mb_error *err)
{
    mb_template *tpl = NULL;
    mb_arena arena = {0};
    int rc = mb_template_open(&tpl, source, strlen(source), "X/chat_template.jinja", err);
    if (rc == MB_OK)
        rc = mb_template_render(tpl, &arena, mb_value_from_json(&arena, variables), input, 1767225600, out, err);
    mb_template_close(tpl);
    mb_arena_free(&arena);
    return rc;
}

/* One request a line on standard input, one answer a line: {"text"} or {"error"}. */
static int render_lines(void)
{
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, stdin) > 0) {
        cJSON *request = cJSON_Parse(line), *answer = cJSON_CreateObject();
        mb_text out = {0};
        mb_error err = {0};
        const char *source = cJSON_GetStringValue(cJSON_GetObjectItem(request, "template"));
        int rc = render(source ? source : "", cJSON_GetObjectItem(request, "variables"), strlen(line), &out, &err);
        if (rc == MB_OK)
            cJSON_AddStringToObject(answer, "text", out.data ? out.data : "");
        else
            cJSON_AddStringToObject(answer, "error", err.text);
        char *shown = cJSON_PrintUnformatted(answer);
        puts(shown);
        free(shown);
        mb_text_free(&out);
        cJSON_Delete(request);
        cJSON_Delete(answer);
    }
    free(line);
    return 0;
}

/* Every line of the fixture: the same text, or an error on both sides. */
static void golden(void **state)
{
    (void)state;
    FILE *file = fopen("tests/model/fixtures/template_cases.jsonl", "r");
    char *line = NULL;
    size_t capacity = 0, n = 0, refused = 0;
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0) {
        cJSON *c = cJSON_Parse(line);
        mb_text out = {0};
        mb_error err = {0};
        assert_non_null(c);
        const char *source = cJSON_GetStringValue(cJSON_GetObjectItem(c, "template"));
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(c, "text"));
        int rc = render(source, cJSON_GetObjectItem(c, "variables"), 0, &out, &err);
        if (text && (rc != MB_OK || strcmp(out.data ? out.data : "", text) != 0))
            fail_msg("%s\n%s\n-- wanted\n%s\n-- got\n%s%s", source, "", text, out.data ? out.data : "", err.text);
        if (!text && rc != MB_E_INPUT)
            fail_msg("%s: rendered, although Jinja refuses it", source);
        n++;
        refused += !text;
        mb_text_free(&out);
        cJSON_Delete(c);
    }
    print_message("%zu renderings, %zu of them errors\n", n, refused);
    assert_true(n > 150 && refused >= 20);
    free(line);
    fclose(file);
}

/* What is not known is refused with its name and its line. */
static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *source, *word;
    } cases[] = {
        {"\n{% include 'x' %}", "line 2: {% include %} is not supported"},
        {"{% import 'x' as y %}", "{% import %}"},
        {"{% block a %}{% endblock %}", "{% block %}"},
        {"{% call f() %}{% endcall %}", "{% call %}"},
        {"{% do x %}", "{% do %}"},
        {"\n\n{{ 'a' | urlize }}", "line 3: the filter \"urlize\" is not supported"},
        {"{{ 'a' | safe }}", "\"safe\""},
        {"{{ 1 is prime }}", "the test \"is prime\" is not supported"},
        {"{{ 'a'.zfill(3) }}", "the method zfill() of \"str\""},
        {"{{ {}.update({}) }}", "the method update() of \"dict\""},
        {"{{ cycler('a') }}", "cycler() is not defined, or not supported"},
        {"{{ 'a' | trim(side='left') }}", "\"side\""},
        {"{{ f(*x) }}", "*arguments"},
        {"{% for x in y recursive %}{% endfor %}", "recursive"},
        {"{{ loop.index }}", "\"loop\" is undefined"},
        {"{% for x in [1] %}{{ loop.changed(x) }}{% endfor %}", "loop.changed"},
        {"{{ range(5) }}", "a \"range\" is printed"},
        {"{{ [1] | map('upper') }}", "a \"generator\" is printed"},
        {"{{ 'stra\xc3\x9f"
         "e' | upper }}",
         "U+00DF"},
        {"{{ \xc3\xa4 }}", "unexpected character"},
        {"{{ 9223372036854775807 + 1 }}", "too large"},
        {"{{ 99999999999999999999 }}", "too large"},
        {"{{ 0x10 }}", "0x"},
        {"{{ '\\N{DASH}' }}", "\\N"},
        {"{# open", "the comment {# is not closed"},
        {"{{ 'open }}", "a string is not closed"},
        {"{% if a %}", "{% endif %} is missing"},
        {"{% for a in b %}", "{% endfor %} is missing"},
        {"{% endif %}", "{% endif %} is not supported"},
        {"{{ (1 }}", "line 1"},
        {"{{ 1 ) }}", "a bracket closes"},
        {"{{ raise_exception('roles must alternate') }}", "refuses the conversation: roles must alternate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_text out = {0};
        mb_error err = {0};
        cJSON *none = cJSON_CreateObject();
        if (render(cases[i].source, none, 0, &out, &err) != MB_E_INPUT || !strstr(err.text, cases[i].word) ||
            !strstr(err.text, "X/chat_template.jinja: line "))
            fail_msg("%s: %s", cases[i].source, err.text);
        assert_int_equal(out.length, 0);
        mb_text_free(&out);
        cJSON_Delete(none);
    }
}

/* `piece` n times between head and tail. */
static char *repeated(const char *head, const char *piece, size_t n, const char *tail)
{
    mb_text text = {0};
    mb_text_puts(&text, head);
    for (size_t i = 0; i < n; i++)
        mb_text_puts(&text, piece);
    mb_text_puts(&text, tail);
    return mb_text_take(&text);
}

/* An expression in n pairs of brackets. */
static char *nested(char open, char close, size_t n)
{
    mb_text text = {0};
    mb_text_puts(&text, "{{ ");
    for (size_t i = 0; i < n; i++)
        mb_text_append(&text, &open, 1);
    mb_text_puts(&text, "1");
    for (size_t i = 0; i < n; i++)
        mb_text_append(&text, &close, 1);
    mb_text_puts(&text, " }}");
    return mb_text_take(&text);
}

/* A hostile template ends with one error, soon. */
static void bounds(void **state)
{
    (void)state;
    struct {
        char *source;
        const char *word;
    } cases[] = {
        {nested('(', ')', 5000), "nested deeper"},
        {nested('[', ']', 5000), "nested deeper"},
        {repeated("{{ ", "-", 5000, "1 }}"), "nested deeper"},
        {repeated("{{ ", "not ", 5000, "1 }}"), "nested deeper"},
        {repeated("{{ ", "1 if 1 else ", 5000, "1 }}"), "nested deeper"},
        {repeated("{{ 'a'", " ~ 'a'", 5000, " }}"), "nested deeper"},
        {repeated("{{ 'a'", ".x", 5000, " }}"), "nested deeper"},
        {repeated("", "{% if 1 %}", 5000, ""), "nested deeper"},
        {repeated("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "", 0, ""), "called deeper"},
        {repeated("", "{% for a in range(1000) %}", 3, "{{ a }}{% endfor %}{% endfor %}{% endfor %}"), "than"},
        {repeated("{% for a in range(9999) %}{% for b in range(99999) %}", "", 0, "{% endfor %}{% endfor %}"),
         "than"},
        {repeated("{% set ns = namespace(s='abcdefgh') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}", "",
                  0, "{% endfor %}{{ ns.s }}"),
         "than"},
        {repeated("{{ 'a' * 99999999999 }}", "", 0, ""), "more than"},
        {repeated("{% set ns = namespace(l=[]) %}{% for a in range(99999) %}{% set ns.l = [ns.l] %}", "", 0,
                  "{% endfor %}{{ ns.l }}"),
         "nested deeper"},
        {repeated("{% set ns = namespace(l=[]) %}{% for a in range(60) %}{% set ns.l = [ns.l, ns.l] %}", "", 0,
                  "{% endfor %}{{ ns.l }}"),
         "than"},
        {repeated("{{ range(100000000) | list | length }}", "", 0, ""), "more than"},
        {repeated("{{ 'a'.replace('', 'b' * 9999999).replace('', 'c' * 99999) }}", "", 0, ""), "more than"},
        {repeated("", "x", MB_TEMPLATE_SOURCE_MAX + 1, ""), "larger than"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_text out = {0};
        mb_error err = {0};
        cJSON *none = cJSON_CreateObject();
        uint64_t begin = mb_clock_ns();
        assert_non_null(cases[i].source);
        int rc = render(cases[i].source, none, 0, &out, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].word))
            fail_msg("%zu: %.80s: %d %s", i, cases[i].source, rc, err.text);
        if (mb_clock_ns() - begin > UINT64_C(60000000000))
            fail_msg("%.80s: took a minute", cases[i].source);
        mb_text_free(&out);
        cJSON_Delete(none);
        free(cases[i].source);
    }
}

/* A prompt of several MiB passes: the bounds grow with it. */
static void long_text(void **state)
{
    (void)state;
    char *text = repeated("", "0123456789 \xc3\xa4\n", 500000, "");
    cJSON *variables = cJSON_CreateObject();
    mb_text out = {0};
    mb_error err = {0};
    const char *source =
        "{% for c in [text] %}{{ '<' + (c | trim) + '>' }}{% if '</x>' in c %}{{ c.split('</x>')[-1] }}"
        "{% endif %}{% endfor %}";
    cJSON_AddStringToObject(variables, "text", text);
    if (render(source, variables, strlen(text), &out, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(out.length, strlen(text) + 1);
    mb_text_free(&out);
    cJSON_Delete(variables);
    free(text);
}

/* ---- folders ---- */

#define PLAIN "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"

/* A folder with these files; the path is good until the next call. */
static const char *folder_of(const char *const files[][2], size_t n)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/mb_template_XXXXXX");
    assert_non_null(mkdtemp(path));
    for (size_t i = 0; i < n; i++) {
        char *name = mb_string_format("%s/%s", path, files[i][0]);
        assert_int_equal(mb_file_write(name, files[i][1], strlen(files[i][1]), NULL), MB_OK);
        free(name);
    }
    return path;
}

static void remove_folder(const char *path, const char *const files[][2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *name = mb_string_format("%s/%s", path, files[i][0]);
        remove(name);
        free(name);
    }
    remove(path);
}

/* Which file holds the template: as transformers 5.24 chooses. */
static void folders(void **state)
{
    (void)state;
    static const struct {
        const char *files[3][2];
        size_t n;
        const char *text; /* NULL: an error, with `word`; "" : the folder has no template */
        const char *word;
    } cases[] = {
        {{{"tokenizer_config.json", "{\"bos_token\":\"<s>\"}"}}, 1, "", NULL},
        {{{"tokenizer_config.json", "{\"chat_template\":null}"}}, 1, "", NULL},
        {{{"tokenizer_config.json", "{\"chat_template\":\"a{{ messages[0].content }}\"}"}}, 1, "aHi", NULL},
        {{{"chat_template.jinja", "b{{ messages[0].content }}\n"}}, 1, "bHi", NULL},
        {{{"chat_template.jinja", "b{{ messages[0].content }}"},
          {"tokenizer_config.json", "{\"chat_template\":\"a{{ messages[0].content }}\",\"bos_token\":\"<s>\"}"}},
         2,
         "bHi",
         NULL},
        {{{"chat_template.json", "{\"chat_template\":\"c{{ messages[0].content }}\"}"}}, 1, "cHi", NULL},
        {{{"tokenizer_config.json",
           "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"t\"},{\"name\":\"default\","
           "\"template\":\"d{{ bos_token }}{{ messages[0].content }}\"}],\"bos_token\":"
           "{\"content\":\"<s>\"}}"}},
         1,
         "d<s>Hi",
         NULL},
        {{{"tokenizer_config.json", "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"t\"}]}"}},
         1,
         NULL,
         "\"default\""},
        {{{"tokenizer_config.json", "{\"chat_template\":7}"}}, 1, NULL, "must be a text"},
        {{{"tokenizer_config.json", "{"}}, 1, NULL, "not valid JSON"},
        {{{"chat_template.jinja", "\n{% extends 'x' %}"}}, 1, NULL, "line 2: {% extends %} is not supported"},
        {{{"chat_template.jinja", "fixed"}}, 1, NULL, "leaves out the message"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_chat_template *chat = NULL;
        mb_error err = {0};
        mb_text out = {0};
        mb_conversation hi = {.text = "Hi", .length = 2, .thinking = -1};
        const char *path = folder_of(cases[i].files, cases[i].n);
        int rc = mb_chat_template_open(&chat, path, &err);
        if (rc == MB_OK && chat)
            rc = mb_chat_template_write(chat, &hi, &out, &err);
        remove_folder(path, cases[i].files, cases[i].n);
        if (cases[i].text && (rc != MB_OK || strcmp(out.data ? out.data : "", cases[i].text) != 0))
            fail_msg("%zu: \"%s\" %s", i, out.data ? out.data : "", err.text);
        if (!cases[i].text && (rc != MB_E_INPUT || !strstr(err.text, cases[i].word)))
            fail_msg("%zu: %d %s", i, rc, err.text);
        mb_text_free(&out);
        mb_chat_template_close(chat);
    }
}

/* System messages and thinking, and what a template would lose silently. */
static void conversations(void **state)
{
    (void)state;
    static const struct {
        const char *source, *system;
        int thinking;
        const char *text, *word;
    } cases[] = {
        {PLAIN, NULL, -1, "[user] Hi\n", NULL},
        {PLAIN, "Be brief.", -1, "[system]Be brief.[user] Hi\n", NULL},
        {PLAIN "{{ enable_thinking is defined }}", NULL, -1, "[user] Hi\nFalse", NULL},
        {PLAIN "{{ enable_thinking }}", NULL, 0, "[user] Hi\nFalse", NULL},
        {PLAIN "{{ thinking }}", NULL, 1, "[user] Hi\nTrue", NULL},
        {PLAIN "{{ tools }}{{ documents }}{{ add_generation_prompt }}", NULL, -1, "[user] Hi\nNoneNoneTrue", NULL},
        {PLAIN, NULL, 1, NULL, "no switch for thinking"},
        {"{{ messages[-1].content | trim }}", NULL, -1, "Hi", NULL},
        {"{{ messages[-1].content }}", "Be brief.", -1, NULL, "leaves out the system message"},
        {"{{ messages[-1].content | upper }}", NULL, -1, NULL, "changes its text"},
        {"{{ raise_exception('no system') if messages[0].role == 'system' }}{{ messages[-1].content }}", "S", -1,
         NULL, "no system"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const files[1][2] = {{"chat_template.jinja", cases[i].source}};
        mb_chat_template *chat = NULL;
        mb_error err = {0};
        mb_text out = {0};
        mb_conversation hi = {
            .text = " Hi\n", .length = 4, .system = cases[i].system, .thinking = cases[i].thinking};
        const char *path = folder_of(files, 1);
        assert_int_equal(mb_chat_template_open(&chat, path, &err), MB_OK);
        int rc = mb_chat_template_write(chat, &hi, &out, &err);
        remove_folder(path, files, 1);
        if (cases[i].text && (rc != MB_OK || strcmp(out.data ? out.data : "", cases[i].text) != 0))
            fail_msg("%s: \"%s\" %s", cases[i].source, out.data ? out.data : "", err.text);
        if (!cases[i].text && (rc != MB_E_INPUT || !strstr(err.text, cases[i].word)))
            fail_msg("%s: %d %s", cases[i].source, rc, err.text);
        mb_text_free(&out);
        mb_chat_template_close(chat);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),    cmocka_unit_test(refused), cmocka_unit_test(bounds),
        cmocka_unit_test(long_text), cmocka_unit_test(folders), cmocka_unit_test(conversations),
    };
    if (argc > 1 && strcmp(argv[1], "--render") == 0)
        return render_lines();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
