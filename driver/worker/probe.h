/* probe.h - a plug-in is loaded by a process of its own before this one loads it: its constructors, its entry
 * function and its destructors run there first. */
#ifndef MB_PROBE_H
#define MB_PROBE_H

#include "base/base.h"

/* For mb_registry_probe(): starts this program once more with the file. MB_E_INPUT with a sentence when the file
 * is refused there, crashes, hangs, or ends that program. */
int mb_probe(const char *path, mb_error *err);
/* The other side: `./harness probe`, with the file as its only plug-in. Returns the exit code. */
int mb_probe_serve(const char *path);

#endif
