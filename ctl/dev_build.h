/* Folders of `plugin dev`: copies of builds that run, and what stood in the folder of builds before the first of them. */
#ifndef CTL_DEV_BUILD_H
#define CTL_DEV_BUILD_H

#include "ctl/ctl.h"

/* The files of a build in a folder of their own, ROOT/<name>; its manifest says version <version>+dev.<nth>, so that each build has a name
 * of its own in history and rows. 0, the folder and that version; -errno with a sentence. Blocks. */
int dev_stage(struct arena *a, const char *built, const char *root, unsigned nth, const char **ret_folder, const char **ret_version, const char **ret_err);

struct dev_before;
/* Reads the files of a folder that builds are going to overwrite. 0; -errno with a sentence. Blocks. */
int dev_before_save(struct dev_before **ret, const char *folder, struct arena *a, const char **ret_err);
/* Writes into `folder` those that are not as they were, with the times that they had: make sees that the sources are younger. 0; -errno
 * with a sentence. Blocks. */
int dev_before_write(const struct dev_before *b, const char *folder, struct arena *a, const char **ret_err);
void dev_before_free(struct dev_before *b); /* NULL is fine */

#endif
