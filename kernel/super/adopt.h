/* Plugin processes across a change of the kernel's program; inside the supervisor. super.h has what the kernel calls. */
#ifndef KERNEL_SUPER_ADOPT_H
#define KERNEL_SUPER_ADOPT_H

#include "kernel/super/plugin.h"

/* Plugins of a ledger, as they ran: none is started or asked to initialise anything. What cannot be taken over is ended. */
void adopt_plugins(struct super *s, struct ledger *l);
/* The same of a daprd that has ended; pidfds and pipes are open. */
void adopt_remains(struct super *s, struct ledger *l);
/* What a ledger says of a plugin that runs, without descriptors. NULL without memory. */
struct ledger_plugin *adopt_describe(struct ledger *l, const struct plugin *p);
/* The instance for spec that an adopted plugin holds already, attached to c, when its Init would be the same; NULL = there is none.
 * Parks until it answers. */
struct instance *adopt_instance(struct super *s, struct component *c, const struct component_spec *spec, struct arena *a);
/* c has started: what an operator did to it before counts again. Parks. */
void adopt_notes(struct super *s, struct component *c, struct arena *a);

#endif
