/* bad.h - a method that would load; each file of this folder breaks one thing and includes this. */
#include "methods/method.h"

static int open_it(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)host, (void)shape, (void)options, (void)err;
    return 0;
}

static int select_it(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)call, (void)out, (void)err;
    return 0;
}

#define SOUND .abi = MB_METHOD_ABI, .size = sizeof(mb_method), .version = "1", .summary = "s", .reference = "r"
#define HOOKS .open = open_it, .select = select_it

const mb_method *mb_method_entry(uint32_t host_abi);
#define ENTRY(method)                                                                                             \
    const mb_method *mb_method_entry(uint32_t host_abi)                                                           \
    {                                                                                                             \
        (void)host_abi;                                                                                           \
        return (method);                                                                                          \
    }
