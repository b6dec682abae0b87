/* See manifest_keys.h. A key that is no row here is refused by the parser, so no key is without its line in the reference. */
#include "kernel/super/manifest_keys.h"

#include "sdk/base/near.h"

const struct manifest_key manifest_keys[] = {
        {"", "name", "text", "required", "Name of the plugin, such as state.mystore: the folder in which it is installed, and the log's scope plugin.NAME. The program says the same."},
        {"", "version", "text", "required", "Its version, such as 1.2.0: orders installed versions. The program says the same."},
        {"", "contract", "list of numbers", "required", "Versions of the plugin contract that it speaks: [1]."},
        {"", "types", "list of maps", "required", "The component types that it serves."},
        {"", "executable", "path", "the name", "The program, relative to the file."},
        {"", "title", "text", "", "What people call it."},
        {"", "description", "text", "", "One sentence about it."},
        {"", "share", "true or false", "false", "true: one process for all components of the plugin; false: a process each. Not with rights that take a setting's value (sandbox: ${field})."},
        {"", "volatile", "true or false", "false", "true: what its components hold ends with its process, so that an upgrade, rollback or restart begins with nothing. The conformance kit then leaves out what an old and a new process must have in common."},
        {"", "hangAfter", "duration", "60s", "All its threads busy for so long, none back, and calls waiting: the process hangs and is replaced. A ping: half of it. From 1s to 24h; 0: never."},
        {"", "environment", "list of texts", "none", "Variables of daprd's environment that the process gets; all others are kept from it. [\"*\"]: all but daprd's own (DAPR_..., APP_API_TOKEN)."},
        {"", "metadata", "list of maps", "none", "The settings that a component takes in spec.metadata. They are checked, and defaults put in, before the process is asked; others are passed on as they are."},
        {"", "sandbox", "map", "not confined", "What the process needs of the machine beyond its socket. {}: nothing, and nothing is granted. Without the key the process is not confined."},

        {"types", "type", "text", "required", "Category and name: state.mystore. Categories: state, secretstores, pubsub, bindings, configuration, lock, crypto, conversation, nameresolution, middleware."},
        {"types", "versions", "list of texts", "[v1]", "Values of spec.version that it serves. v1 stands for an empty one and v0, too."},
        {"types", "features", "list of texts", "", "Features of the type, for readers; the program's own word counts, and the conformance kit compares both."},

        {"metadata", "name", "text", "required", "Name of the setting. Components may write it in any case."},
        {"metadata", "type", "text", "string", "What its value must be; see below."},
        {"metadata", "values", "list of texts", "", "The values of an enum, in any case."},
        {"metadata", "required", "true or false", "false", "true: a component without it is refused. Not together with default."},
        {"metadata", "missing", "text", "", "What is said when a required one is missing, in place of our wording."},
        {"metadata", "default", "text", "", "Sent to the plugin when a component does not say the setting."},
        {"metadata", "sensitive", "true or false", "false", "true: its value is never shown."},
        {"metadata", "aliases", "list of texts", "none", "Other names that components use; passed on as they are."},
        {"metadata", "description", "text", "", "One sentence about it."},

        {"sandbox", "files", "list of maps", "none", "Files and folders that it reads or writes."},
        {"sandbox", "network", "list of maps", "none", "Ports that it connects to or listens on."},
        {"sandbox", "programs", "list of maps", "none", "Programs that it starts."},
        {"sandbox", "limits", "map", "", "Limits of its process."},

        {"files", "path", "text", "required", "A path, or ${field}: the value of that setting; \"file:\" before and \"?...\" behind it do not count. Of a folder: all that is below it."},
        {"files", "access", "read or write", "read", "write: to create, change and remove, too."},
        {"files", "beside", "true or false", "false", "true: the folder in which the file stands, for journals and locks."},
        {"files", "when", "text", "always", "field=value: only when a setting has that value; ${field}: only when it is given."},
        {"files", "reason", "text", "", "Why, for whoever must decide whether to trust the plugin."},

        {"network", "connect", "text", "", "${field}: the hosts with ports in that setting's value; \"*\": any; \"unix\": sockets of the file system; \"udp\": datagrams only. Either connect or listen."},
        {"network", "listen", "number", "", "A port on which it takes connections."},
        {"network", "port", "number", "", "For hosts in the value that say none."},
        {"network", "when", "text", "always", "As in files."},
        {"network", "reason", "text", "", "Why."},

        {"programs", "path", "text", "required", "A program; a folder: those below it; \"self\": processes of its own program."},
        {"programs", "when", "text", "always", "As in files."},
        {"programs", "reason", "text", "", "Why."},

        {"limits", "memory", "size", "2Gi", "Of data, such as 512Mi."},
        {"limits", "processes", "number", "512", "Threads and processes; counts where the process has a user or a cgroup of its own."},
        {"limits", "cpu", "number", "no limit", "CPUs, such as 0.5; only where the machine lets daprd have cgroups."},
};
const size_t n_manifest_keys = sizeof manifest_keys / sizeof *manifest_keys;

bool manifest_key_known(const char *map, struct str name, const char **ret_near)
{
        *ret_near = NULL;
        for (size_t i = 0; i < n_manifest_keys; i++) {
                const struct manifest_key *k = &manifest_keys[i];
                if (strcmp(k->map, map) != 0)
                        continue;
                if (str_eqz(name, k->name))
                        return true;
                if (!*ret_near && edit_distance(name, str_of(k->name), 2) <= 2)
                        *ret_near = k->name;
        }
        return false;
}
