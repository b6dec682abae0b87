/*
 * The standard's tables in its order: marks of HTML (behind white space, in any case, ended by a space or '>'), signatures with and
 * without a gap, MP4 by its first box, and text for what has no binary byte.
 */
#include "sdk/net/sniff.h"

static const char *const html[] = {"<!DOCTYPE HTML", "<HTML", "<HEAD", "<SCRIPT", "<IFRAME", "<H1", "<DIV", "<FONT", "<TABLE", "<A",
                                   "<STYLE", "<TITLE", "<B", "<BODY", "<BR", "<P", "<!--"};

/* gap: four bytes of any value behind the first four of `bytes`. late: at this offset. */
struct signature {
        const char *bytes;
        unsigned char n, late;
        bool gap;
        const char *type;
};
#define SIG(bytes, type) {bytes, sizeof bytes - 1, 0, false, type}
#define GAP(bytes, type) {bytes, sizeof bytes - 1, 0, true, type}
static const struct signature documents[] = {SIG("%PDF-", "application/pdf"), SIG("%!PS-Adobe-", "application/postscript")};
static const struct signature marks[] = {SIG("\xfe\xff", "text/plain; charset=utf-16be"), SIG("\xff\xfe", "text/plain; charset=utf-16le"),
                                         SIG("\xef\xbb\xbf", "text/plain; charset=utf-8")};
static const struct signature media[] = {
        SIG("\0\0\1\0", "image/x-icon"), SIG("\0\0\2\0", "image/x-icon"), SIG("BM", "image/bmp"), SIG("GIF87a", "image/gif"),
        SIG("GIF89a", "image/gif"), GAP("RIFFWEBPVP", "image/webp"), SIG("\x89PNG\r\n\x1a\n", "image/png"),
        SIG("\xff\xd8\xff", "image/jpeg"), GAP("FORMAIFF", "audio/aiff"), SIG("ID3", "audio/mpeg"), SIG("OggS\0", "application/ogg"),
        SIG("MThd\0\0\0\6", "audio/midi"), GAP("RIFFAVI ", "video/avi"), GAP("RIFFWAVE", "audio/wave")};
static const struct signature files[] = {
        SIG("\x1a\x45\xdf\xa3", "video/webm"), {"LP", 2, 34, false, "application/vnd.ms-fontobject"}, SIG("\0\1\0\0", "font/ttf"),
        SIG("OTTO", "font/otf"), SIG("ttcf", "font/collection"), SIG("wOFF", "font/woff"), SIG("wOF2", "font/woff2"),
        SIG("\x1f\x8b\x08", "application/x-gzip"), SIG("PK\3\4", "application/zip"), SIG("Rar!\x1a\7\0", "application/x-rar-compressed"),
        SIG("Rar!\x1a\7\1\0", "application/x-rar-compressed"), SIG("\0asm", "application/wasm")};

static bool is_html(struct str s)
{
        for (size_t i = 0; i < sizeof html / sizeof *html; i++) {
                size_t n = strlen(html[i]);
                if (s.n < n || !str_ieq(str_n(s.p, n), str_of(html[i])))
                        continue;
                if (html[i][n - 1] == '-' || (s.n > n && (s.p[n] == ' ' || s.p[n] == '>')))
                        return true;
        }
        return false;
}

static bool has(struct str s, const struct signature *g)
{
        size_t first = g->gap ? 4 : g->n;

        s = str_skip(s, g->late);
        if (s.n < g->n + (g->gap ? 4u : 0u) || memcmp(s.p, g->bytes, first))
                return false;
        return !g->gap || !memcmp(s.p + 8, g->bytes + 4, g->n - 4u);
}

static const char *find(struct str s, const struct signature *list, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (has(s, &list[i]))
                        return list[i].type;
        return NULL;
}
#define FIND(s, list) find(s, list, sizeof list / sizeof *list)

/* The first box is a file type that names a brand "mp4…"; the minor version, at 12, is no brand. */
static bool is_mp4(struct str s)
{
        const unsigned char *p = (const unsigned char *)s.p;

        if (s.n < 12 || memcmp(s.p + 4, "ftyp", 4))
                return false;
        size_t box = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (s.n < box || box % 4)
                return false;
        for (size_t i = 8; i + 3 <= box; i += 4)
                if (i != 12 && !memcmp(s.p + i, "mp4", 3))
                        return true;
        return false;
}

static bool is_text(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                unsigned char b = (unsigned char)s.p[i];
                if (b < 0x20 && b != '\t' && b != '\n' && b != '\f' && b != '\r' && b != 0x1b)
                        return false;
        }
        return true;
}

struct str sniff_type(struct str body)
{
        struct str s = str_n(body.p, body.n < SNIFF_BYTES ? body.n : SNIFF_BYTES), trimmed = s;
        const char *type;

        while (trimmed.n && trimmed.p[0] && strchr("\t\n\f\r ", trimmed.p[0]))
                trimmed = str_skip(trimmed, 1);
        if (is_html(trimmed))
                type = "text/html; charset=utf-8";
        else if (str_has_prefix(trimmed, STR("<?xml")))
                type = "text/xml; charset=utf-8";
        else if (!(type = FIND(s, documents)) && !(type = FIND(s, marks)) && !(type = FIND(s, media)))
                type = is_mp4(s) ? "video/mp4" : FIND(s, files);
        if (!type)
                type = is_text(s) ? "text/plain; charset=utf-8" : "application/octet-stream";
        return str_of(type);
}
