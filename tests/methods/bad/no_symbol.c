/* A shared object that is no method. */
#include "methods/method.h"

int somebody_elses_library(void);
int somebody_elses_library(void)
{
    return MB_METHOD_ABI;
}
