/*
 * Inside the supervisor. Four nouns:
 *   plugin     what serves components: a process of ours that is started again when it dies, or a foreign socket that is
 *              dialled again when it is lost. Its states and events are the table in table.c.
 *   life       one run of that process, from spawn to the reaped pid, or one connection to a foreign socket. Calls hold a
 *              life while they are in flight; a dead life is cleaned up in the background while the next one starts.
 *   instance   one initialised component inside a plugin.
 *   component  the handle that everybody holds: its present instance may be exchanged for another under running calls.
 * Everything runs on the loop thread.
 */
#ifndef KERNEL_SUPER_PLUGIN_H
#define KERNEL_SUPER_PLUGIN_H

#include "kernel/super/hop.h"
#include "kernel/super/cgroup.h"
#include "kernel/super/manifest.h"
#include "kernel/super/output.h"
#include "kernel/super/runtime_dir.h"
#include "kernel/super/sandbox_watch.h"
#include "kernel/super/super.h"
#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"
#include "sdk/base/map.h"

#define SUPER_SCOPE "dapr.super" /* of log lines */
#define DEBUG_LIMIT_S 86400.0    /* a person with a debugger */

enum { CONTRACT_VERSION = 1, DEATHS_KEPT = 32, ERROR_BYTES = 1024, STOP_GRACE_S = 5, VIOLATION_BYTES = 320, STUCK_BYTES = 320, LINGER_TOKEN_BYTES = 36 };

enum plugin_event {
        EV_START,        /* it is wanted */
        EV_CONNECTED,    /* the fresh process can be spoken to */
        EV_HELLO,        /* answered and accepted */
        EV_REFUSED,      /* answered and refused */
        EV_READY,        /* its components are initialised */
        EV_BACKEND_UP,
        EV_BACKEND_DOWN,
        EV_LOST,         /* connection gone */
        EV_HANG,         /* no report in time */
        EV_TIMEOUT,      /* the start takes too long */
        EV_EXIT,         /* the process has ended */
        EV_BACKOFF_OVER,
        EV_STOP,         /* it is no longer wanted */
        EV_DRAINED,
        EV_GIVE_UP,      /* a first start failed for good */
        PLUGIN_EVENTS
};
const char *plugin_event_name(enum plugin_event e);

struct plugin;

struct sending { /* a call on its way */
        struct list in_life;
        bool is_suspect; /* the life was ended as a hang, and this was the first of its calls */
};

struct life {
        struct plugin *plugin;
        unsigned number;           /* of the plugin's lives, from 1 */
        unsigned refs;             /* the plugin's, each call's, each fiber's */
        pid_t pid;
        int pidfd, control_fd;     /* -1 = none */
        struct io_watch exit_watch;
        struct output out, err;
        struct rpc_channel *ch;
        struct scope scope;        /* Hello, Init, health */
        struct list calls;         /* in flight, oldest first: struct sending.in_life */
        bool usable;               /* calls may use ch */
        bool has_debugger;         /* of one that started stopped: when it was last looked for */
        bool ended;                /* the process is reaped, or the foreign connection dropped */
        struct sandbox_watch *watch; /* of what a confined process asks for; NULL = none */
        unsigned walls;            /* WALL_ bits of those that stand around it; 0 = not confined */
        char violation[VIOLATION_BYTES]; /* what it asked for and may not have: "wanted to read /etc/shadow" */
        enum death_class verdict;  /* why we ended it; DEATH_NONE = it was not us */
        int signal;                /* that ended it, 0 = none */
        double started_at, ready_at; /* loop time; ready_at 0 = never */
        uint64_t good_calls;
        double report_at;          /* of the last health report */
        unsigned abandoned;        /* calls that run in it for nobody, as it reported last */
        char stuck[STUCK_BYTES];   /* what in it does not come back; "" = nothing does so for too long */
        bool is_blocked;           /* because of its threads or its ping: nobody is served by it */
        bool stuck_for_good;       /* it was taken for hung because of that */
        struct timer watchdog, kill_timer, start_timer, debug_timer;
        double watchdog_due;       /* when it should fire */
        enum death_class kill_why;
        /* What tells it to a kernel that comes after this one's crash. */
        char token[LINGER_TOKEN_BYTES]; /* "" = it does not linger */
        uint64_t start_ticks, executable_id;
        uid_t uid;
        unsigned generation;       /* how often it was taken over after a crash */
        bool attached;             /* it is no child of ours: how it ends is not told, and it hangs on lifeline */
        struct rpc_call *lifeline; /* its Attach; NULL = none */
        char cgroup[CGROUP_NAME_BYTES]; /* of its own; "" = none */
        char oom_file[CGROUP_FILE_BYTES]; /* of the memory group it was last seen in, whoever's; what was killed there so far */
        bool oom_of_living;
        uint64_t oom_kills, rss_bytes; /* when it was last looked at */
        enum { OOM_UNKNOWN, OOM_NO, OOM_YES } oom; /* did it die of that? */
        bool oom_is_own;           /* its own cgroup says so, and nobody else is in there */
};

struct instance {
        struct list in_plugin;     /* plugin.instances */
        struct component *component;
        struct plugin *plugin;
        const struct component_spec *spec;
        char *log_name;
        unsigned features;
        struct str init_request;   /* packed InitRequest with defaults, heap; sent again after each restart */
        unsigned init_life;        /* number of the life in which Init succeeded */
        bool started, init_failed; /* the first Init has succeeded, or failed */
        bool has_fallen;           /* lost on trial, and on its way out because of that */
        bool stopping;             /* on its way out: it is freed when nothing uses it any more */
        unsigned ping_round;       /* of the last Ping (foreign) */
        char init_error[ERROR_BYTES];
        int init_code;             /* gRPC code of the failed first Init */
        unsigned inits;            /* fibers that are at Init */
        uint64_t inflight;         /* calls that run or wait here, and whoever else holds it */
        struct rpc_md md;          /* x-component-instance */
};

enum { HOP_METHODS_MAX = 12 };
struct hop_series {
        char method[48];
        struct metric_series *series;
};

struct component {
        struct list in_super;      /* super.components, or super.gone */
        struct super *super;
        enum component_kind kind;
        char *name;
        struct component *stands_for; /* a handle on this one's candidate, which is gone before streams on it are; NULL = it is no such */
        struct instance *now;      /* NULL = removed; the handle stays, for who still holds it, and serves the next of its name */
        struct fmutex changing;    /* swap, restart, removal: one after the other */
        bool disabled;             /* by the operator */
        uint64_t calls, errors;
        /* swap.c */
        struct plugin *candidate;  /* that comes up; NULL = none */
        struct instance *standby;  /* the one before, kept until the present one has proved itself; NULL = none */
        double standby_until;
        char *previous;            /* plugin.yaml of the one before, for a roll-back; NULL = none */
        struct component_spec *refused; /* of a swap that was not done, or taken back; NULL = none */
        struct shadow *shadow;     /* reads go to a candidate too; NULL = no */
        struct fault *fault;       /* an operator makes calls fail; NULL = no */
        enum death_class last_death; /* of any of its processes that nobody asked to end */
        struct tap *tap;           /* an operator records calls; NULL = no */
        struct hop_series hops[HOP_METHODS_MAX]; /* hop.c */
        size_t n_hops;
};


struct plugin {
        struct list in_super;      /* super.plugins */
        struct super *super;
        struct manifest *manifest; /* NULL = foreign */
        char *name;                /* of the plugin: log scope plugin.<name> */
        char *socket;              /* dial target */
        char *path;                /* of the socket file */
        int listen_fd;             /* ours to keep; -1 = foreign */
        enum plugin_state state;
        double state_since;
        struct life *life;         /* present one, or NULL */
        unsigned lives;
        struct list instances;
        struct cond changed;       /* state, or an instance's Init */
        bool debugged;             /* its first process starts stopped, for a debugger; nobody is in a hurry then */
        bool first;                /* has never been ready: a failure is final */
        bool patient;              /* but for deaths by chance: somebody waits for as long as initTimeout says */
        bool wanted;
        bool restarting;           /* stopped to be started at once: calls wait for that */
        unsigned restarts;
        double deaths[DEATHS_KEPT]; /* times of those that count, oldest first */
        size_t n_deaths;
        enum death_class last_death;
        char last_error[ERROR_BYTES];  /* of the process */
        char backend_error[ERROR_BYTES];
        bool backend_known, backend_up;
        struct timer backoff;
        double drain_deadline;
        unsigned ping_round;
        char *reported_name, *reported_version; /* from Hello */
        struct map idempotent;     /* method -> any non-NULL */
        struct map features;       /* component type, lower case -> its bits of Hello, FEATURES_KNOWN with them */
        struct map services;       /* foreign: from reflection */
        struct log_ring ring;
        struct ledger_plugin *adopted; /* taken over; what it holds, until everything has started */
};

struct failed_start { /* a row for daprctl about a component that is not there */
        struct list in_super;
        char *name, *type, *error;
};

struct super {
        struct super_conf conf;
        struct super_tuning tuning;
        struct list plugins, components, failed;
        struct list gone;          /* handles of removed components */
        size_t n_failed;
        struct scope scope;        /* discovery, control */
        struct scope cleanup;      /* of dead lives; never cancelled */
        struct runtime_dir dir;
        struct map foreign;        /* "state.mystore" -> struct plugin */
        struct foreign_watch *watch;
        struct control *control;
        size_t waiting;            /* calls that wait for a restart */
        struct history *history;
        double linger_s;           /* plugins go on for so long after a crash of the kernel; 0 = they end with it */
        struct remains *remains;   /* of a daprd that crashed; NULL = none, or not needed any more */
        unsigned taking;           /* starts that wait for an adopted plugin, which stays for them, and so does the ledger */
        struct cond taken;         /* the last of them waits no more */
        struct keeper *keeper;     /* of the ledger on disk */
        struct cgroups cgroups;
        uint64_t oom_before, oom_now; /* processes killed for want of memory on this machine, as last read and before that */
        double oom_at;             /* when it was read */
        unsigned sockets;          /* number for the next socket's name */
        bool stopping, started;
        unsigned upgrades;         /* how often the kernel has replaced itself */
};

/* table.c: runs the action of the present state; may be called from the loop's stack. */
void plugin_event(struct plugin *p, enum plugin_event e);
bool plugin_is_callable(const struct plugin *p);

/* confine.c: the walls around one start of the plugin's process. */
struct confinement {
        struct grant grant;
        struct sandbox sandbox;
};
/* From the manifest's rights and the metadata of the plugin's components. 0 or -errno; strings in a. Blocks for a moment. */
int confine_prepare(const struct plugin *p, struct arena *a, struct confinement *ret);
/* A cgroup for its process: its folder, the caller's, and l->cgroup; -1 = none. */
int confine_group(struct life *l, const struct confinement *c);
void confine_watch(struct life *l, const struct confinement *c); /* once the process runs */
/* Of a process that was taken over: takes fd; its plugin has an instance. */
void confine_adopted(struct life *l, int fd, unsigned walls, struct arena *a);

/* plugin.c */
struct plugin *plugin_new(struct super *s, struct manifest *m /* takes; NULL = foreign */, const char *name);
void plugin_free(struct plugin *p); /* no life, no components */
/* Of its process that has ended: also its components' last. */
void plugin_set_death(struct plugin *p, enum death_class d);
void plugin_set_error(struct plugin *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *plugin_version(const struct plugin *p); /* of the manifest, else as it said in Hello; "" if unknown */
void plugin_note(struct plugin *p, const char *what, const char *text); /* into the history of each of its components */
void plugin_notify(struct plugin *p); /* wakes waiters, tells the kernel */

/* life.c: none of these parks */
/* A process that runs already: takes the descriptors, connects. 0 or -errno (they are still the caller's). */
int life_adopt(struct plugin *p, const struct ledger_plugin *e);
int life_start(struct plugin *p);   /* 0, or -errno with p->last_error set */
/* The process of a life whose program was looked at. What fails is told as an event. */
struct life_program {
        int exec_fd;               /* open; -1 = by the manifest's path */
        bool is_pinned_script;     /* its interpreter must leave nothing in the plugin's folder */
};
void life_run(struct life *l, const struct life_program *program);
bool life_is_debugged(const struct life *l);
bool life_is_held(const struct life *l); /* by a debugger, or for one */
double life_limit_s(const struct life *l, double s); /* how long it may take for something that usually takes s at most */
void life_kill(struct life *l, enum death_class why);
void life_kill_after(struct life *l, double s, enum death_class why);
void life_let_go(struct life *l);   /* the end of the control socket, or of the stream in its place, tells the process to go */
void life_end(struct life *l);      /* the process is gone: detaches from the plugin, cleans up in the background */
void life_ref(struct life *l);
void life_unref(struct life *l);
void life_watchdog_start(struct life *l);

/* check.c: whether it is the plugin that was meant */
bool life_needs_check(const struct plugin *p);
/* Of a process that was taken over: NULL, or why it is not. Parks. */
const char *life_check_again(struct life *l, struct arena *a);
int life_check_start(struct life *l); /* then the process starts, or the plugin has FAILED; 0 or -errno */

/* death.c */
enum death_class death_classify(const struct life *l, int code, int status, char *text, size_t n);
/* Reads the machine's count of processes killed for want of memory, at most once a second: a rise is told from older ones by time. */
void death_oom_sample(struct super *s);
/* The same of the memory group that a process is in, and its memory; and once more when it has ended, before it is reaped. */
void death_oom_watch(struct life *l);
void death_oom_look(struct life *l);
/* Notes a death. Returns the delay before the next start in seconds, or -1: that was one too many. */
double death_tally(struct plugin *p, const struct life *l, enum death_class why);

/* super.c */
/* The plugin that serves spec, made when needed (it has no process then). 0, or -errno with a text. */
int super_find_plugin(struct super *s, const struct component_spec *spec, enum component_kind kind, struct arena *a, struct plugin **ret,
                      const char **ret_err);
/* Brings an instance up, with its plugin; parks. 0, or -errno with a text. */
int super_bring_up(struct instance *i, double timeout_s, struct arena *a, const char **ret_err);
/* An instance that did not come up, or is not wanted: gone with its process. Frees it. Parks. */
void super_abandon(struct instance *i);
/* Ends one in good order: waits up to calls_s for its calls, drains and stops its plugin when nothing else is in it. Frees it. Parks. */
void super_retire(struct instance *i, double calls_s, double grace_s);
/* Parks until the plugin's process is gone, a moment at most: it was killed or told to end. */
void super_wait_gone(struct plugin *p);
void super_stop_plugin(struct plugin *p, double grace_s); /* drains and stops it; parks */
uint64_t super_rss_bytes(pid_t pid); /* memory in use by a process; 0 = unknown */
double component_timeout_s(const struct component_spec *spec);

/* swap.c */
bool swap_goes_back(const struct plugin *p); /* it was lost on trial: what it took the place of serves again */
void component_refuse(struct component *c, const struct component_spec *spec); /* NULL = none any more */

/* repeat.c */
/* May the call, whose outcome is unknown, be sent to the version before the one that died? a: for looking into the request. */
bool call_may_be_repeated(struct arena *a, const char *method, struct str req);

/* calls.c */
/* One call to this very instance, sent once. As component_call_bytes. */
int instance_call(struct instance *i, struct arena *a, const char *method, struct str req, struct str *resp, struct rpc_status *st);

/* instance.c */
/* Makes one inside p with its Init request; it begins with no component. 0, or -ENOMEM. */
int instance_new(struct instance **ret, struct plugin *p, const struct component_spec *spec, struct arena *a);
void instance_free(struct instance *i);
void instance_attach(struct instance *i, struct component *c); /* c->now is the caller's matter */
void instance_hold(struct instance *i);
void instance_release(struct instance *i);
bool instance_is_usable(const struct instance *i);
void instance_wait_idle(struct instance *i); /* parks, shielded, until nothing runs in it */

/* stuck.c: what its reports tell of operations that do not come back */
struct Microdapr__Plugin__V1__HealthReport;
double plugin_hang_after_s(const struct plugin *p); /* 0 = never */
void life_judge_report(struct life *l, const struct Microdapr__Plugin__V1__HealthReport *r); /* may end the life */

/* hello.c: what is said to a fresh process; fibers */
int life_go(struct life *l, const char *name, fiber_fn fn); /* a fiber that holds the life */
int life_hello_start(struct life *l);
int life_health_start(struct life *l);
/* To a process that ran already: NULL, or why it cannot be used. Parks. */
const char *life_hello_again(struct life *l, struct arena *a);
int life_resume_start(struct life *l); /* attach.c; of one that was adopted: connects, then its health is watched */
int instance_init_start(struct instance *i); /* Init in the present life, again and again until it succeeds */
int life_drain_start(struct life *l, double grace_s);

/* foreign.c: sockets that are not ours */
struct plugin *foreign_find(struct super *s, const char *type); /* "state.mystore", case does not count; NULL = none */
/* A socket file stands (again) at path: asks it what it serves, registers its types. Parks, not long. True: it is one. */
bool foreign_add(struct super *s, const char *path, bool tell_kernel);
int foreign_ping_start(struct life *l);

/* foreign_watch.c: the folder of sockets */
void foreign_watch_stop(struct super *s);
void foreign_watch_free(struct super *s); /* after super.scope has ended */

/* kinds.c */
unsigned component_feature_bit(struct str name); /* 0 = unknown */
/* Features of a foreign component into c->features. 0 or the gRPC code. Parks. */
int instance_ask_features(struct instance *i, struct life *l, struct arena *a, const char *service, struct rpc_status *st);
bool instance_serves(const struct instance *i, const char *service);
bool kind_of_type(struct str type, enum component_kind *ret);
const char *kind_noun(enum component_kind k); /* "state store" */
const char *component_feature_name(unsigned bit);
const char *kind_service(enum component_kind k, size_t i); /* gRPC services with Init, Features and Ping; NULL past the last */

#endif
