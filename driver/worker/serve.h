/* serve.h - the other side of isolation: what `./harness worker` does until the run that started it is gone. */
#ifndef MB_SERVE_H
#define MB_SERVE_H

#include "base/base.h"

/* MB_E_INPUT: no run started this process. */
int mb_serve(mb_error *err);

#endif
