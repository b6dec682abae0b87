/*
 * Is the plugin in this folder the one that was meant? Asked by daprd before each start of a plugin's process, and by daprctl's
 * doctor and lock --check, so that both say the same.
 *
 *   lock     plugins.lock has a row for it: name, version, platform and digest of the package must be these. With a lock, what came
 *            from elsewhere than daprd itself must have a row.
 *   signed   besides, the package must be signed by a key of the trust store; what came with daprd is trusted like daprd.
 *
 * A package that is checked must be whole: each file is as its list says, nothing stands beside them, and nobody but root and the
 * user who asks may write them. Files are opened once, beneath the folder and through no link; the program that was looked at is
 * given open, to be run by its descriptor, so that exchanging the file in between is without effect. Scripts are read by their
 * interpreter, by name and later: there the rule about who may write is what remains.
 */
#ifndef SDK_TRUST_VERIFY_H
#define SDK_TRUST_VERIFY_H

#include "sdk/trust/keyring.h"
#include "sdk/trust/lockfile.h"
#include "sdk/trust/policy.h"

enum verify_step { VERIFY_STEP_LOCK, VERIFY_STEP_PACKAGE, VERIFY_STEP_SIGNATURE };
struct verify_fault {
        enum verify_step step;
        const char *what, *fix;         /* a sentence; one command, or words where no command helps */
};
struct verify_ask {
        const char *folder, *executable; /* where plugin.yaml stands; the program's path */
        const char *name, *version;     /* as plugin.yaml says */
        struct str manifest;            /* plugin.yaml as it was read and taken; p NULL = as it stands there */
        const char *exe_dir;            /* where daprd's program is: what stands in a folder beside that came with it */
        enum verify_policy policy;
        const char *lock;               /* path of plugins.lock; "" = there is none */
};
struct verified {
        int exec_fd;                    /* of an ELF program that was looked at, the caller's; -1 = start it by its path */
        bool is_script;                 /* it was looked at, and is a script */
        bool is_pinned;
        const char *signed_by;          /* name of the key; NULL = nobody was asked for */
        size_t n_files;                 /* that were looked at; 0 = nothing was to be checked */
        char digest[DIGEST_HEX + 1];    /* of the package; "" = not looked at */
};
/* 0 and *ret; -EPERM and *fault, -ENOMEM (fault says so, too). Strings in the arena. Blocks: reads the whole package; any thread. */
int verify_plugin(const struct verify_ask *q, struct arena *a, struct verified *ret, struct verify_fault *fault);

#endif
