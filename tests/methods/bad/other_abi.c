/* Built for a later contract. Everything behind the first field is none of the loader's business. */
#include "tests/methods/bad/bad.h"

static const struct {
    uint32_t abi, size;
    void *garbage[4];
} method = {7, 0xffffffffu, {(void *)8, (void *)8, (void *)8, (void *)8}};

static const mb_method unused = {SOUND, HOOKS};
ENTRY(host_abi ? (const mb_method *)(const void *)&method : &unused)
