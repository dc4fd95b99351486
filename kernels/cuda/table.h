/* table.h - the entries of the CUDA table that device.c provides; signatures as in kernels.h. */
#ifndef MB_CUDA_TABLE_H
#define MB_CUDA_TABLE_H

#include "kernels/kernels.h"

int mb_cuda_open(mb_device **device, const mb_device_options *options, mb_error *err);
void mb_cuda_close(mb_device *device);
void mb_cuda_info(mb_device *device, mb_device_info *info);
const char *mb_cuda_error(mb_device *device);
void *mb_cuda_alloc(mb_device *device, size_t bytes);
size_t mb_cuda_mark(mb_device *device);
void mb_cuda_release(mb_device *device, size_t mark);
int mb_cuda_upload(mb_device *device, void *dst, const void *host, size_t bytes);
int mb_cuda_download(mb_device *device, void *host, const void *src, size_t bytes);
int mb_cuda_copy(mb_device *device, void *dst, const void *src, size_t bytes);
int mb_cuda_fill(mb_device *device, void *dst, int byte, size_t bytes);
int mb_cuda_sync(mb_device *device);
/* Makes the attention workspace at least that large; an error inside a capture. */
int mb_cuda_workspace(mb_device *device, size_t bytes);
int mb_cuda_capture_begin(mb_device *device);
int mb_cuda_capture_end(mb_device *device, mb_graph **graph);
int mb_cuda_branch_begin(mb_device *device);
int mb_cuda_branch_end(mb_device *device);
int mb_cuda_branch_join(mb_device *device);
int mb_cuda_graph_launch(mb_device *device, mb_graph *graph);
void mb_cuda_graph_free(mb_device *device, mb_graph *graph);
int mb_cuda_timer_mark(mb_device *device, int slot);
int mb_cuda_timer_elapsed(mb_device *device, int from, int to, double *us);
void mb_cuda_range_push(mb_device *device, const char *name);
void mb_cuda_range_pop(mb_device *device);
int mb_cuda_telemetry(mb_device *device, mb_telemetry *telemetry);
void *mb_cuda_stream(mb_device *device);
int mb_cuda_profile_begin(mb_device *device);
extern const mb_link mb_cuda_link_table;
void mb_cuda_link_close(mb_device *device);
/* Around what enqueues sums: they fail where the link was aborted, which waits until they have left. */
int mb_cuda_link_enter(mb_device *device);
void mb_cuda_link_leave(mb_device *device);
int mb_cuda_profile_end(mb_device *device, mb_kernel_record **records, size_t *count);

#endif
