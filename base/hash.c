/* hash.c - content hashes (XXH3-128 of libxxhash) and the deterministic random numbers. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

struct mb_hash {
    XXH3_state_t *state;
};

mb_hash *mb_hash_new(void)
{
    mb_hash *hash = malloc(sizeof *hash);
    if (!hash)
        return NULL;
    hash->state = XXH3_createState();
    if (!hash->state) {
        free(hash);
        return NULL;
    }
    XXH3_128bits_reset(hash->state);
    return hash;
}

void mb_hash_add(mb_hash *hash, const void *data, size_t size)
{
    if (size)
        XXH3_128bits_update(hash->state, data, size);
}

/* Canonical (big-endian) hex, so that the text is equal on every machine. */
static void write_hex(XXH128_hash_t value, char hex[MB_HASH_CAP])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, value);
    for (size_t i = 0; i < sizeof canonical.digest; i++)
        snprintf(hex + 2 * i, 3, "%02x", canonical.digest[i]);
}

void mb_hash_end(mb_hash *hash, char hex[MB_HASH_CAP])
{
    write_hex(XXH3_128bits_digest(hash->state), hex);
    XXH3_freeState(hash->state);
    free(hash);
}

void mb_hash_bytes(const void *data, size_t size, char hex[MB_HASH_CAP])
{
    write_hex(XXH3_128bits(size ? data : "", size), hex);
}

int mb_hash_file(const char *path, char hex[MB_HASH_CAP], mb_error *err)
{
    const unsigned char *data = NULL;
    size_t size = 0;
    int rc = mb_file_map(path, &data, &size, err);
    if (rc != MB_OK)
        return rc;
    mb_hash_bytes(data, size, hex);
    mb_file_unmap(data, size);
    return MB_OK;
}

/* ---- random numbers: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014) ---- */

mb_random mb_random_seed(uint64_t seed)
{
    return (mb_random){seed};
}

mb_random mb_random_named(uint64_t seed, const char *name)
{
    return (mb_random){XXH3_64bits_withSeed(name, strlen(name), seed)};
}

uint64_t mb_random_next(mb_random *random)
{
    uint64_t z = (random->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t mb_random_below(mb_random *random, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n; /* reject the uneven rest: no bias */
    uint64_t value;
    do
        value = mb_random_next(random);
    while (value >= limit);
    return value % n;
}

double mb_random_unit(mb_random *random)
{
    return (double)(mb_random_next(random) >> 11) * 0x1.0p-53;
}

uint64_t mb_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}
