/*
 * A plugin process for the conformance kit: `daprd --confined-plugin` puts up the walls of one start around itself and becomes the
 * plugin, so that whoever has started it is the plugin's runtime and holds descriptors 3 and 4 of it.
 *
 * Standard input holds the plugin's folder, then names and values of the component's metadata, each ended by NUL (secrets must not
 * stand in argv). The environment is the plugin's. What asks the kernel before each call (WALL_WATCH) is left out: no kernel is there.
 */
#ifndef KERNEL_SUPER_CONFINE_RUN_H
#define KERNEL_SUPER_CONFINE_RUN_H

#define CONFINE_RUN_ARG "--confined-plugin" /* as the only argument */
enum { CONFINE_RUN_INPUT_MAX = 1024 * 1024 };

int confine_run(void); /* the exit code, after a sentence on stderr; on success it does not return */

#endif
