/* file.h: what file.c and outdir.c share. */
#ifndef TM_BASE_FILE_H
#define TM_BASE_FILE_H

#include "base/base.h"

int tm__sync_fd(int fd);                  /* 0 or an errno */
int tm__sync_directory(const char *path); /* 0 or an errno */
/* "a/b/" is "a/" and "b"; "b" is "." and "b"; "/" has the empty name. Both are the caller's. */
tm_status tm__path_split(const char *path, char **directory, char **name);

#endif
