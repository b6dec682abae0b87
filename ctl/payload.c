/* What commands send: data of a flag, or of a file; metadata as a JSON object. */
#include <errno.h>
#include <stdio.h>

#include "ctl/payload.h"

static int read_file(struct arena *a, FILE *f, struct str *ret)
{
        struct buf b = {0};
        char chunk[2048];
        size_t n;
        errno = 0;
        while (buf_len(&b) <= PAYLOAD_MAX_BYTES && (n = fread(chunk, 1, sizeof(chunk), f)) > 0)
                buf_add(&b, chunk, n);
        int r = ferror(f) ? -errno : buf_len(&b) > PAYLOAD_MAX_BYTES ? -EFBIG : b.failed ? -ENOMEM : 0;
        *ret = r ? STR_NULL : b.len ? arena_str(a, buf_str(&b)) : STR("");
        buf_fini(&b);
        return r;
}

int payload_read(struct arena *a, const char *command, const char *data, const char *file, struct str *ret)
{
        *ret = str_of(data);
        if (!*file)
                return 0;
        if (*data) {
                ui_say(UI_FAILURE, "Only one of --data and --data-file allowed in the same %s command", command);
                return 1;
        }
        bool standard = strcmp(file, "-") == 0;
        FILE *f = standard ? stdin : fopen(file, "re");
        int r = f ? read_file(a, f, ret) : -errno;
        if (f && !standard)
                fclose(f);
        if (r)
                ui_say(UI_FAILURE, "Error reading payload from '%s'. Error: %s", file, r == -EFBIG ? "the file is larger than 64 MiB" : strerror(-r));
        return r != 0;
}

int payload_metadata(struct arena *a, const char *text, void (*fn)(void *arg, struct str key, struct str value), void *arg)
{
        struct json_reader r;
        struct str key, value;
        bool good = true;
        if (!*text)
                return 0;
        json_read_init(&r, str_of(text));
        good = json_enter_object(&r);
        while (good && json_next_member(&r, a, &key)) {
                good = json_read_string(&r, a, &value);
                if (good)
                        fn(arg, key, value);
        }
        good = good && !r.error && json_peek(&r) == JSON_END;
        if (!good)
                ui_say(UI_FAILURE, "--metadata is no JSON object of strings such as '{\"key\":\"value\"}': %s", text);
        return !good;
}

struct sidecar *payload_sidecar(struct arena *a, const char *app_id, const char *socket)
{
        struct sidecars all;
        int r = sidecars_find(a, false, &all);
        struct sidecar *s = r ? NULL : sidecars_get(&all, app_id);
        if (r)
                ui_say(UI_FAILURE, "Could not read the process table: %s", strerror(-r));
        else if (!s)
                ui_say(UI_FAILURE, "App ID %s not found: no daprd of that id runs here (dapr list shows those that do)", app_id);
        if (s && *socket)
                s->socket = socket;
        return s;
}

struct str payload_error(struct arena *a, struct str body)
{
        struct json_reader r;
        struct str key, message = STR_NULL;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return body;
        while (json_next_member(&r, a, &key))
                if (!str_eqz(key, "message") || !json_read_string(&r, a, &message))
                        json_skip(&r);
        return message.p ? message : body;
}
