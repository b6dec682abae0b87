/*
 * The ledger on disk, in the folder of a daprd's sockets (runtime_dir.h): `ledger`, 0600. A frame around the text:
 *
 *   8 bytes "MDLEDGER" · version, 4 · length of the text, 4 · checksum of all after it, 8 · app id, 64, ended by NULs · the text
 *
 * numbers little-endian; the checksum is FNV-1a, 64 bits: against cut-off and damaged files, not against whoever may write there.
 * The first 88 bytes stay as they are in later versions: whose ledger it is can be told of any.
 */
#ifndef KERNEL_SUPER_LEDGER_FILE_H
#define KERNEL_SUPER_LEDGER_FILE_H

#include "kernel/super/ledger.h"

#define LEDGER_FILE "ledger"
enum { LEDGER_APP_ID_BYTES = 64, LEDGER_HEAD_BYTES = 24 + LEDGER_APP_ID_BYTES };

struct ledger_head {
        uint32_t version;
        char app_id[LEDGER_APP_ID_BYTES + 1];
};
/* l with its frame. 0, -ENOMEM, -E2BIG: longer than LEDGER_BYTES_MAX. */
int ledger_frame(const struct ledger *l, struct buf *to);
/* 0: head and l are read (l->arena in use, ledger_fini). -EPROTO: of another version; head is read. -EBADMSG: damaged; nothing is.
 * -ENOMEM. With what is wrong in *ret_err (static, or in l's arena). */
int ledger_unframe(struct ledger *l, struct str bytes, struct ledger_head *head, const char **ret_err);
/* Writes the file whole or not at all. 0 or -errno. Blocks. */
int ledger_file_write(const char *folder, struct str bytes);
/* As ledger_unframe; -ENOENT: there is none; other -errno. A file of another user, or open to others, is damaged. Blocks. */
int ledger_file_read(struct ledger *l, int folder_fd, struct ledger_head *head, const char **ret_err);

#endif
