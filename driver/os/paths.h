/* paths.h - where an installed program finds what it brought along. */
#ifndef MB_PATHS_H
#define MB_PATHS_H

/* The path itself where it exists (relative: from the working folder), else PREFIX/share/maskbench/path where that
 * does, with PREFIX the folder above the program's bin. Otherwise the path itself, so that an error names what was
 * asked for. malloc'ed; NULL: out of memory. */
char *mb_shared_path(const char *path);

#endif
