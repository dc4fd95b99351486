/*
 * device.h - what a backend says about itself: storage types, how a device is opened, what it is, what its kernels
 * are for, its state around a timed sample.
 */
#ifndef MB_KERNELS_DEVICE_H
#define MB_KERNELS_DEVICE_H

#include <stddef.h>
#include <stdint.h>

typedef enum mb_type { MB_F32 = 0, MB_BF16 = 1, MB_F16 = 2, MB_I32 = 3 } mb_type;

/* Bytes of one element of a type. */
static inline size_t mb_type_size(mb_type type)
{
    return type == MB_BF16 || type == MB_F16 ? 2 : 4;
}

/* As configs and flags spell a type. */
static inline const char *mb_type_name(mb_type type)
{
    return type == MB_F32 ? "f32" : type == MB_BF16 ? "bf16" : type == MB_F16 ? "f16" : "i32";
}

typedef struct mb_device mb_device; /* opaque: one CPU thread pool or one GPU with its stream and arena */
typedef struct mb_graph mb_graph;   /* opaque: a captured sequence of operations */

typedef struct mb_device_options {
    mb_type type;       /* storage type T of activations and KV cache */
    int threads;        /* CPU: worker threads, 0 = all cores this process may use */
    int ordinal;        /* CUDA: device number */
    size_t arena_bytes; /* what alloc() may hand out in all; the CPU only reserves address space. 0: as much as
                         * there is (a GPU keeps 1 GiB back for graphs and libraries) */
    size_t spare_bytes; /* with arena_bytes 0 a GPU leaves these free as well, for other processes */
    bool reduced;       /* a GPU's training operations may round the operands of products */
    bool *no_room;      /* NULL, or set where a failed open() is for lack of memory and for nothing else */
} mb_device_options;

typedef struct mb_device_info {
    char name[128];      /* "NVIDIA H200", "AMD EPYC ..." */
    char detail[256];    /* compute capability and SM count; or ISA and threads */
    char driver[80];     /* "550.54.15"; "" = a CPU, or not known */
    char runtime[32];    /* CUDA's: "12.4"; "" on a CPU */
    char uuid[48];       /* "GPU-1b2c..."; "" on a CPU */
    size_t memory_total; /* bytes */
    size_t memory_free;  /* bytes, now */
    size_t arena_free;   /* bytes that alloc() can still hand out */
} mb_device_info;

#define MB_TIMER_SLOTS 64

/* What a GPU kernel was for: the stacked parts of a breakdown. */
typedef enum mb_part {
    MB_PART_GEMM = 0,
    MB_PART_DENSE_ATTENTION = 1, /* exact attention over the prefix (and block), prefill */
    MB_PART_SELECTION = 2,       /* masses, scores, bounds, top-k */
    MB_PART_SPARSE_ATTENTION = 3,
    MB_PART_BLOCK_ATTENTION = 4, /* the block on its own keys, merges of states */
    MB_PART_ELEMENTWISE = 5,     /* embedding, norms, RoPE, SwiGLU */
    MB_PART_SAMPLER = 6,         /* best token, probabilities */
    MB_PART_COPY = 7,            /* copies and fills */
    MB_PART_METHOD = 8,          /* kernels that a method brought itself */
    MB_PART_COUNT = 9
} mb_part;

/* One kernel that ran while a profile was open. */
typedef struct mb_kernel_record {
    char name[96];
    double start_us, end_us; /* on the device's clock, from the first kernel of the profile */
    mb_part part;
} mb_kernel_record;

/* State of the device around a timed sample. */
typedef struct mb_telemetry {
    int32_t sm_mhz, sm_reference_mhz; /* 0 = unknown; reference: the highest clock that applications get */
    int64_t throttle;                 /* NVML's bit mask of reasons, -1 = unknown */
    double temperature, power;        /* Celsius, watt; NAN = unknown */
    int32_t other_processes;          /* that compute on this device, -1 = unknown */
} mb_telemetry;

#endif
