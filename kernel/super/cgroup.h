/*
 * Control groups (v2): where this daprd's own one is delegated to it, each plugin gets one of its own, with the limits of its manifest.
 *
 * Delegated: its folder can be written to, and it was given away: to this user, by systemd (Delegate=yes), or because it is the root
 * that a container sees. Limits need the controllers memory, pids and cpu there; to hand them on the group itself must be empty, so that
 * daprd moves into a child of it, when nobody else is in it. In a group that hands controllers on no process can be started: whoever wants
 * to start the next daprd while plugins of this one live starts it in a child of the group that is delegated (systemd: DelegateSubgroup=;
 * known by systemd's mark, the attribute user.delegate=1, on the group above), and plugins' groups stand beside that child. Without
 * controllers a group still serves to end all of a plugin's processes.
 */
#ifndef KERNEL_SUPER_CGROUP_H
#define KERNEL_SUPER_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CGROUP_PATH_BYTES = 256, CGROUP_NAME_BYTES = 48, CGROUP_WHY_BYTES = 400,
       CGROUP_FILE_BYTES = CGROUP_PATH_BYTES + CGROUP_NAME_BYTES + 40 };
struct cgroups {
        char v2[CGROUP_PATH_BYTES], v1_memory[CGROUP_PATH_BYTES]; /* where they are mounted; "" = not */
        char v2_root[CGROUP_PATH_BYTES];                          /* what of the hierarchy is mounted there */
        char own[CGROUP_PATH_BYTES];                              /* folder in which groups are made; "" = none */
        char why[CGROUP_WHY_BYTES];                               /* why none is, or which limits are missing and why; "" = all is there */
        bool memory, pids, cpu;                                   /* limits that can be set */
        char self[CGROUP_NAME_BYTES];                             /* the child that daprd has moved to; "" = it has not */
        bool is_beside;                                           /* own is the group above that of daprd */
        bool stays;                                               /* a daprd after this one must be able to start where this one did */
        unsigned made;
        unsigned left;                                            /* one could not be removed yet: so often it is tried again */
};
struct cgroup_limits {
        uint64_t memory_bytes;
        unsigned processes;
        unsigned cpu_percent; /* of one CPU; 0 = no limit */
};
/* Looks around. own: a folder for the groups whatever the machine says (tests); NULL. stays: plugins may outlive this daprd. Blocks for a
 * moment. */
void cgroups_find(struct cgroups *g, const char *own, bool stays);
bool cgroups_can_limit(const struct cgroups *g);
/* A new group: >= 0 its folder, open, to start a process in, and its name; or -errno. */
int cgroup_make(struct cgroups *g, const struct cgroup_limits *l, char ret_name[CGROUP_NAME_BYTES]);
/* Part of it: as far as there are controllers. 0 or -errno. */
int cgroup_limit(const struct cgroups *g, const char *name, const struct cgroup_limits *l);
/* Is there one of that name? One that another daprd has made may stand elsewhere. */
bool cgroup_is_there(const struct cgroups *g, const char *name);
/* Has the machine killed processes in it for want of memory, and how many? False also when it cannot tell. */
bool cgroup_had_oom(const struct cgroups *g, const char *name, uint64_t *ret_kills);
/* Ends what is still in it and removes it; "" is fine. What cannot be removed yet, because processes take a moment to die, is by tidy. */
void cgroup_remove(struct cgroups *g, const char *name);
void cgroups_tidy(struct cgroups *g); /* cheap when there is nothing */
/* Back to where daprd was, nothing left behind. */
void cgroups_leave(struct cgroups *g);

/* The file that counts what was killed for want of memory in the memory group (v1 or v2, anybody's) of a process. A dead process that is
 * not reaped yet still tells its group in v2; *ret_of_living: only a living one tells. False: the machine does not tell. */
bool cgroup_oom_file(const struct cgroups *g, pid_t pid, char ret_file[CGROUP_FILE_BYTES], bool *ret_of_living);
bool cgroup_oom_count(const char *file, uint64_t *ret);

#endif
