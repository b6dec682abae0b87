/*
 * The run file of `run -f`: several apps with what they share (https://docs.dapr.io/developing-applications/local-development/multi-app-dapr-run/).
 * Members common to apps stand in one table. Relative paths count from the file's folder (common) or the app's (its own).
 * Resources: the app's, <appDirPath>/.dapr/resources, common's, the default. Configuration: likewise with config.yaml.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "ctl/run.h"
#include "sdk/base/yaml.h"

enum member_kind { M_TEXT, M_INT, M_BOOL };
static const struct member {
        const char *name;
        enum member_kind kind;
        size_t offset;
} members[] = {
#define M(n, k, f) {n, k, offsetof(struct run_opts, f)}
        M("appID", M_TEXT, app_id), M("appPort", M_INT, app_port), M("appProtocol", M_TEXT, app_protocol),
        M("appChannelAddress", M_TEXT, app_channel_address), M("daprHTTPPort", M_INT, http_port), M("daprGRPCPort", M_INT, grpc_port),
        M("daprInternalGRPCPort", M_INT, internal_grpc_port), M("profilePort", M_INT, profile_port), M("metricsPort", M_INT, metrics_port),
        M("unixDomainSocket", M_TEXT, socket), M("configFilePath", M_TEXT, config), M("apiListenAddresses", M_TEXT, listen_addresses),
        M("enableProfiling", M_BOOL, enable_profiling), M("logLevel", M_TEXT, log_level), M("appMaxConcurrency", M_INT, max_concurrency),
        M("placementHostAddress", M_TEXT, placement), M("schedulerHostAddress", M_TEXT, scheduler), M("appSSL", M_BOOL, app_ssl),
        M("maxBodySize", M_TEXT, max_body_size), M("readBufferSize", M_TEXT, read_buffer_size),
        M("enableAppHealthCheck", M_BOOL, enable_health), M("appHealthCheckPath", M_TEXT, health_path),
        M("appHealthProbeInterval", M_INT, health_interval), M("appHealthProbeTimeout", M_INT, health_timeout),
        M("appHealthThreshold", M_INT, health_threshold), M("enableApiLogging", M_BOOL, enable_api_logging),
        M("runtimePath", M_TEXT, globals.runtime_path),
#undef M
};
/* Read elsewhere, or for Kubernetes only. */
static const char *const other_members[] = {"appDirPath", "command", "env", "resourcesPath", "resourcesPaths", "daprdLogDestination",
                                            "appLogDestination", "componentsPath", "containerImage", "containerImagePullPolicy", "createService"};

struct reader {
        struct arena *a;
        const char *file, *dir; /* of the run file */
        bool failed;
};

static int complain(struct reader *r, const struct yaml_node *at, const char *text)
{
        ui_say(UI_FAILURE, "Error getting apps from config file: %s", at ? yaml_error(r->a, at, "%s", text) : text);
        r->failed = true;
        return 1;
}

static const char *text_of(struct reader *r, const struct yaml_node *n)
{
        struct str s = STR_NULL;
        if (!n || yaml_is_null(n))
                return NULL;
        if (yaml_string(r->a, n, YAML_V3, &s) != 0) {
                complain(r, n, "a string is expected here");
                return NULL;
        }
        return s.p ? arena_strdup(r->a, s) : NULL;
}

static int read_member(struct reader *r, const struct member *m, const struct yaml_node *n, struct run_opts *o)
{
        void *field = (char *)o + m->offset;
        const char *t = text_of(r, n);
        struct yaml_value v;
        int64_t i;
        if (r->failed || !t)
                return r->failed;
        switch (m->kind) {
        case M_TEXT:
                *(const char **)field = t;
                return 0;
        case M_INT:
                if (parse_int64(str_of(t), &i) != 0 || i < -1 || i > 1 << 30)
                        return complain(r, n, "a whole number is expected here");
                *(int *)field = (int)i;
                return 0;
        case M_BOOL:
                if (yaml_resolve(r->a, n, YAML_1_1, &v) != 0 || v.type != YAML_BOOL)
                        return complain(r, n, "true or false is expected here");
                *(bool *)field = v.b;
                return 0;
        }
        return 1;
}

static int read_members(struct reader *r, const struct yaml_node *map, struct run_app *app)
{
        if (map->kind != YAML_MAP)
                return complain(r, map, "a map of settings is expected here");
        for (struct yaml_item *it = map->items; it; it = it->next) {
                bool known = false;
                for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
                        if (str_eqz(it->key->text, members[i].name)) {
                                known = true;
                                if (read_member(r, &members[i], it->value, &app->o))
                                        return 1;
                        }
                for (size_t i = 0; i < sizeof(other_members) / sizeof(*other_members); i++)
                        known |= str_eqz(it->key->text, other_members[i]);
                if (!known)
                        ui_say(UI_WARNING, "%s", yaml_error(r->a, it->key, "the setting %s is not known and is ignored", it->key->text.p));
        }
        app->o.placement_given |= yaml_get(map, "placementHostAddress") != NULL;
        app->o.scheduler_given |= yaml_get(map, "schedulerHostAddress") != NULL;
        return 0;
}

static const char *checked_path(struct reader *r, const char *base, const struct yaml_node *n)
{
        const char *t = text_of(r, n), *p = t && *t ? path_absolute(r->a, base, t) : NULL;
        if (p && !path_exists(p))
                complain(r, n, arena_printf(r->a, "%s does not exist", p));
        return p;
}

/* resourcesPaths and the older resourcesPath. */
static int read_resources(struct reader *r, const struct yaml_node *map, const char *base, const char *const **ret, size_t *n)
{
        const struct yaml_node *list = yaml_get(map, "resourcesPaths"), *one = yaml_get(map, "resourcesPath");
        size_t cap = (list && list->kind == YAML_LIST ? list->n : 0) + 1;
        const char **v = arena_alloc(r->a, cap * sizeof(*v));
        if (!v)
                return 1;
        *n = 0;
        if (list && list->kind != YAML_LIST && !yaml_is_null(list))
                return complain(r, list, "a list of folders is expected here");
        for (struct yaml_item *it = list && list->kind == YAML_LIST ? list->items : NULL; it; it = it->next)
                if ((v[*n] = checked_path(r, base, it->value)))
                        ++*n;
        const char *p = one ? checked_path(r, base, one) : NULL;
        if (p)
                v[(*n)++] = p;
        *ret = v;
        return r->failed;
}

static int read_env(struct reader *r, const struct yaml_node *map, struct run_app *app)
{
        const struct yaml_node *env = yaml_get(map, "env");
        if (!env || yaml_is_null(env))
                return 0;
        if (env->kind != YAML_MAP)
                return complain(r, env, "env is a map of names to values");
        const char **more = arena_alloc(r->a, (app->n_env + env->n) * sizeof(*more) + 1);
        if (!more)
                return 1;
        if (app->n_env)
                memcpy(more, app->env, app->n_env * sizeof(*more));
        app->env = more;
        for (struct yaml_item *it = env->items; it; it = it->next) {
                const char *v = text_of(r, it->value);
                app->env[app->n_env++] = arena_printf(r->a, "%.*s=%s", STR_FMT(it->key->text), v ? v : "");
        }
        return r->failed;
}

static int read_destination(struct reader *r, const struct yaml_node *map, const char *name, int *ret)
{
        const struct yaml_node *n = yaml_get(map, name);
        const char *t = n ? text_of(r, n) : NULL;
        if (!t || !*t)
                return 0;
        if (strcmp(t, "console") == 0)
                *ret = DEST_CONSOLE;
        else if (strcmp(t, "file") == 0)
                *ret = DEST_FILE;
        else if (strcmp(t, "fileAndConsole") == 0)
                *ret = DEST_FILE | DEST_CONSOLE;
        else
                return complain(r, n, "a log destination is one of console, file and fileAndConsole");
        return 0;
}

static int read_command(struct reader *r, const struct yaml_node *map, struct run_app *app)
{
        const struct yaml_node *n = yaml_get(map, "command");
        if (!n || yaml_is_null(n))
                return 0;
        if (n->kind != YAML_LIST)
                return complain(r, n, "command is a list of words, e.g. [\"python3\", \"app.py\"]");
        if (n->n == 0)
                return 0;
        app->command = arena_zalloc(r->a, (n->n + 1) * sizeof(*app->command));
        size_t k = 0;
        for (struct yaml_item *it = n->items; app->command && it; it = it->next) {
                const char *t = text_of(r, it->value);
                app->command[k++] = (char *)(t ? t : "");
        }
        return r->failed;
}

static FILE *open_log(struct reader *r, struct run_app *app, const char *what, const char **ret_path)
{
        char stamp[32];
        time_t now = time(NULL);
        struct tm tm;
        localtime_r(&now, &tm);
        strftime(stamp, sizeof(stamp), "%Y%m%d%H%M%S", &tm);
        app->log_dir = arena_printf(r->a, "%s/.dapr/logs", app->dir);
        *ret_path = arena_printf(r->a, "%s/%s_%s_%s.log", app->log_dir, app->o.app_id, what, stamp);
        int e = path_mkdirs(app->log_dir);
        FILE *f = e ? NULL : fopen(*ret_path, "ae");
        if (!f)
                complain(r, NULL, arena_printf(r->a, "the log file %s cannot be written: %s", *ret_path, strerror(e ? -e : errno)));
        return f;
}

static int read_logs(struct reader *r, const struct yaml_node *map, const struct yaml_node *common, struct run_app *app)
{
        app->app_dest = DEST_FILE | DEST_CONSOLE;
        app->daprd_dest = DEST_FILE;
        if ((common && (read_destination(r, common, "appLogDestination", &app->app_dest) ||
                        read_destination(r, common, "daprdLogDestination", &app->daprd_dest))) ||
            read_destination(r, map, "appLogDestination", &app->app_dest) ||
            read_destination(r, map, "daprdLogDestination", &app->daprd_dest))
                return 1;
        if (app->daprd_dest & DEST_FILE && !(app->daprd_log = open_log(r, app, "daprd", &app->daprd_log_path)))
                return 1;
        if (app->command && app->app_dest & DEST_FILE && !(app->app_log = open_log(r, app, "app", &app->app_log_path)))
                return 1;
        return 0;
}

/* The app's own, what stands in its folder, the common one; relative paths count from where they are written. */
static const char *read_path(struct reader *r, const struct yaml_node *map, const struct yaml_node *common, const struct run_app *app,
                             const char *member, const char *local)
{
        const char *in_folder = local ? arena_printf(r->a, "%s/.dapr/%s", app->dir, local) : NULL, *p = NULL;
        if (yaml_get(map, member))
                p = checked_path(r, app->dir, yaml_get(map, member));
        else if (path_exists(in_folder))
                p = in_folder;
        else if (common && yaml_get(common, member))
                p = checked_path(r, r->dir, yaml_get(common, member));
        return p ? p : "";
}

static int read_paths(struct reader *r, const struct yaml_node *map, const struct yaml_node *common, struct run_app *app)
{
        const char **local = arena_alloc(r->a, sizeof(*local));
        if (!local)
                return 1;
        if (yaml_get(map, "runtimePath") || (common && yaml_get(common, "runtimePath")))
                app->o.globals.runtime_path = read_path(r, map, common, app, "runtimePath", NULL);
        app->o.config = read_path(r, map, common, app, "configFilePath", "config.yaml");
        if (r->failed || read_resources(r, map, app->dir, &app->resources, &app->n_resources) || app->n_resources > 0)
                return r->failed;
        if (path_exists(*local = arena_printf(r->a, "%s/.dapr/resources", app->dir))) {
                app->resources = local;
                app->n_resources = 1;
                return 0;
        }
        return common ? read_resources(r, common, r->dir, &app->resources, &app->n_resources) : 0;
}

static int read_app(struct reader *r, const struct yaml_node *map, const struct yaml_node *common, struct run_app *app)
{
        if ((common && read_members(r, common, app)) || read_members(r, map, app))
                return 1;
        const struct yaml_node *dir = yaml_get(map, "appDirPath");
        if (!dir || !(app->dir = checked_path(r, r->dir, dir)))
                return r->failed ? 1 : complain(r, map, "required field 'appDirPath' not found in the provided app config file");
        if (!*app->o.app_id)
                app->o.app_id = strrchr(app->dir, '/') + 1;
        if (!*app->o.app_id)
                return complain(r, map, "this app needs an appID");
        if (read_paths(r, map, common, app) || (common && read_env(r, common, app)) || read_env(r, map, app) || read_command(r, map, app))
                return 1;
        return read_logs(r, map, common, app);
}

static int read_stdin(struct reader *r, struct str *ret)
{
        struct buf b = {0};
        size_t n;
        do {
                if (buf_reserve(&b, 65536) != 0 || buf_len(&b) > YAML_MAX_FILE_BYTES) {
                        buf_fini(&b);
                        return complain(r, NULL, "what comes from standard input is too long for a run file");
                }
                n = fread(b.p + b.len, 1, 65536, stdin);
                b.len += n;
        } while (n);
        r->file = "stdin";
        char *cwd = getcwd(NULL, 0);
        r->dir = arena_strdup(r->a, str_of(cwd ? cwd : "/"));
        free(cwd);
        *ret = arena_str(r->a, buf_str(&b));
        buf_fini(&b);
        return 0;
}

static int read_text(struct reader *r, const char *path, struct str *ret)
{
        const char *err = NULL;
        if (strcmp(path, "-") == 0)
                return read_stdin(r, ret);
        r->file = path_run_file(r->a, path);
        if (!r->file)
                return complain(r, NULL, arena_printf(r->a, "%s: %s", path, strerror(errno)));
        const char *slash = strrchr(r->file, '/'); /* the path is absolute */
        r->dir = arena_strdup(r->a, str_n(r->file, slash > r->file ? (size_t)(slash - r->file) : 1));
        return yaml_read_file(r->a, r->file, true, ret, &err) == 0 ? 0 : complain(r, NULL, err);
}

int runfile_read(struct arena *a, const char *file, const struct run_opts *defaults, struct run_app **ret, size_t *n)
{
        struct reader r = {.a = a};
        struct str text;
        struct yaml_node *root = NULL;
        const char *err = NULL;
        if (read_text(&r, file, &text))
                return 1;
        if (yaml_read(a, text, r.file, 1, 0, &root, &err) != 0)
                return complain(&r, NULL, err);
        const struct yaml_node *apps = yaml_get(root, "apps"), *common = yaml_get(root, "common"), *version = yaml_get(root, "version");
        const char *v = version ? text_of(&r, version) : NULL, *name = text_of(&r, yaml_get(root, "name"));
        if (!v || strcmp(v, "1") != 0)
                return complain(&r, version ? version : root, "required field 'version' not found in the provided run template file: it is 1");
        if (!apps || apps->kind != YAML_LIST || apps->n == 0)
                return complain(&r, apps ? apps : root, "No apps to run: the run file needs a list apps");
        *ret = arena_zalloc(a, apps->n * sizeof(**ret));
        if (!*ret)
                return 1;
        *n = 0;
        for (struct yaml_item *it = apps->items; it; it = it->next) {
                struct run_app *app = &(*ret)[(*n)++];
                app->o = *defaults;
                app->several = true;
                app->template_path = r.file;
                app->template_name = name;
                if (read_app(&r, it->value, yaml_is_null(common) ? NULL : common, app))
                        return 1;
        }
        return 0;
}
