/* From a plugin's source folder to the folder with plugin.yaml and the program in it. */
#ifndef CTL_COMPILE_H
#define CTL_COMPILE_H

#include "ctl/ctl.h"

/*
 * Runs what is there: make (Makefile), else go build (go.mod), else npm install (package.json with dependencies), else nothing.
 * The result is DIR/<name>/ when it has a plugin.yaml, else DIR. A Go program without a Makefile goes to DIR/<name>/<name>.
 * 0 and *ret (in the arena); 1 after saying what is wrong; the tools' output goes to our stderr. Parks.
 */
int compile_plugin(struct arena *a, const char *dir, bool run_tools, const char **ret);
/* The folder with plugin.yaml and the program: DIR, or DIR/<name>/ when DIR is that of the sources. 0 and *ret; 1 after saying what was
 * looked for. */
int compile_find_built(struct arena *a, const char *dir, const char **ret);
/* Warns of a source file in DIR that was changed after the program was built. Nothing where they are the same folder. */
void compile_warn_stale(struct arena *a, const char *dir, const char *program);
/* Value of a top-level member of DIR/plugin.yaml; NULL after saying what is wrong. */
const char *compile_manifest_text(struct arena *a, const char *dir, const char *member);

#endif
