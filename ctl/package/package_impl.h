/* What package.c and package_folder.c share. */
#ifndef CTL_PACKAGE_IMPL_H
#define CTL_PACKAGE_IMPL_H

#include "ctl/package/package.h"

/* r, with "source: what" in *ret_err. */
int package_fail(struct package *p, struct arena *a, const char **ret_err, int r, const char *what);
const char *package_machine(struct str file);              /* platform of an ELF file; NULL = it is none */
const char *package_platform_of(const struct package *p);  /* of its files; "mixed" for several */
struct package_file *package_file(const struct package *p, const char *name);
int package_read_manifest(struct package *p, struct str text, struct arena *a, const char **ret_err);
int package_write_list(struct package *p);
int package_read_list(struct package *p, struct str list, struct arena *a, const char **ret_err);
int package_check_file(struct package *p, struct package_file *f, struct str data, struct arena *a, const char **ret_err);

#endif
