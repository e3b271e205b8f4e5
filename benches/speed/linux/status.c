/* What `incumbent status` asks, by a C program with the same SQLite: the same statements, a probe of
 * the holder's anchor, a look at its process. It explains nothing, and judges nothing that is not the
 * rule. The benchmark builds it, to know what a process that answers this cannot do without.
 *
 *     status DB PROFILE
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sqlite3.h"

#define INSTANCE                                                                                  \
    "id, nonce_hash, profile, kind, origin, pid, start_time_unit, start_time, child_pid, "        \
    "child_start_time, boot_id, pid_ns, host, uid, argv, version, party, supervisor, "            \
    "stop_budget_ms, anchor, keeper_pid, started_at_ms, heartbeat_every_ms, heartbeat_at_ms, "    \
    "ended_at_ms, end_reason, ended_by, exit_code, signal, detail, anchor_inode, anchor_dev, "    \
    "anchor_fsid, process_inode, child_process_inode, keeper_process_inode, child_sid, "          \
    "command_lock, command_lock_inode, keeper2_pid, keeper2_start_time, keeper_ended_at_ms, "     \
    "written_boot_clock_ms, written_by, restarts, command_since_at_ms, command_since_boot_ms"

enum { PID = 5, ARGV = 14, ANCHOR = 19 };

/* ?1: the profile, ?2: the holder's id. */
static const char *const AFTERWARDS[] = {
    "SELECT " INSTANCE " FROM instances WHERE profile = ?1 AND kind = 'gateway' "
    "AND ended_at_ms IS NOT NULL ORDER BY id DESC LIMIT 1",
    "SELECT desired FROM profiles WHERE profile = ?1",
    "SELECT home FROM profiles WHERE profile = ?1",
    "SELECT pid, first_at_ms, last_at_ms, count FROM conflicts "
    "WHERE profile = ?1 AND kind = 'gateway' AND holder_id = ?2 ORDER BY last_at_ms DESC",
    "SELECT scope, identity_hash, instance_id, fence, acquired_at_ms, ttl_ms, lease_until_ms, "
    "lease_boot_id, metadata, slot, slots, slot_of FROM scoped_locks WHERE instance_id = ?2 "
    "ORDER BY scope, identity_hash",
    "SELECT id, name, instance_id, pid, writer, writer_pid, writer_uid, reason, written_at_ms, "
    "expires_at_ms, writer_id FROM markers WHERE instance_id = ?2 AND closed_at_ms IS NULL "
    "AND expires_boot_ms > 0 ORDER BY id",
    "SELECT state, state_since_at_ms, exit_reason, restart_requested, active_agents, extra, "
    "heartbeat_boot_ms, heartbeat_asleep_ms, writer, writer_pid, updated_at_ms, memory_bytes "
    "FROM runtime_status WHERE instance_id = ?2",
    "SELECT profile, platform, state, state_since_at_ms, error_code, error_message, "
    "needs_attention, retrying_since_at_ms, extra, writer, writer_pid, updated_at_ms "
    "FROM platform_status WHERE instance_id = ?2 AND profile = ?1 ORDER BY platform",
    "SELECT profile FROM serves WHERE instance_id = ?2 ORDER BY position, profile",
    "SELECT s.outcome = 'refused' AND h.ended_at_ms IS NULL, s.at_ms, s.pid, s.reason, h.id, "
    "h.profile, h.kind, h.pid FROM starts AS s LEFT JOIN instances AS h ON h.id = s.holder_id "
    "WHERE s.profile = ?1 AND s.kind = 'gateway' ORDER BY s.id DESC LIMIT 1",
    "SELECT instance_id, since_at_ms FROM waiters WHERE profile = ?1 AND kind = 'gateway' "
    "AND scope IS NULL ORDER BY since_at_ms, instance_id",
};

static sqlite3 *db;

static void check(int code)
{
    if (code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE) {
        fprintf(stderr, "status: %s\n", sqlite3_errmsg(db));
        exit(70);
    }
}

static sqlite3_stmt *prepare(const char *sql)
{
    sqlite3_stmt *statement;
    check(sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
    return statement;
}

/* Every column of every row, as a program would that shows them. */
static int read_all(sqlite3_stmt *statement)
{
    int rows = 0, code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(statement); i++)
            sqlite3_column_text(statement, i);
        rows++;
    }
    check(code);
    sqlite3_finalize(statement);
    return rows;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    struct stat facts;
    if (stat(argv[1], &facts))
        return 3;
    check(sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL));
    check(sqlite3_exec(db, "PRAGMA trusted_schema = 0; PRAGMA user_version; BEGIN", 0, 0, 0));
    read_all(prepare("SELECT (SELECT value FROM meta WHERE key = 'store_uuid'),"
                     "(SELECT value FROM meta WHERE key = 'min_writer'),"
                     "(SELECT value FROM meta WHERE key = 'last_id'),"
                     "(SELECT value FROM meta WHERE key = 'lost_owners')"));

    char anchor[4096] = "", command[4096] = "";
    long pid = 0;
    sqlite3_int64 id = 0;
    sqlite3_stmt *live = prepare("SELECT " INSTANCE " FROM instances WHERE profile = ?1 "
                                 "AND kind = 'gateway' AND ended_at_ms IS NULL");
    check(sqlite3_bind_text(live, 1, argv[2], -1, SQLITE_STATIC));
    int code = sqlite3_step(live);
    check(code);
    if (code == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(live); i++)
            sqlite3_column_text(live, i);
        id = sqlite3_column_int64(live, 0);
        pid = sqlite3_column_int64(live, PID);
        snprintf(anchor, sizeof anchor, "%s.anchors/%s", argv[1],
                 (const char *)sqlite3_column_text(live, ANCHOR));
        snprintf(command, sizeof command, "%s", (const char *)sqlite3_column_text(live, ARGV));
    }
    sqlite3_finalize(live);

    for (size_t i = 0; i < sizeof AFTERWARDS / sizeof *AFTERWARDS; i++) {
        sqlite3_stmt *statement = prepare(AFTERWARDS[i]);
        if (sqlite3_bind_parameter_count(statement) >= 1)
            sqlite3_bind_text(statement, 1, argv[2], -1, SQLITE_STATIC);
        if (sqlite3_bind_parameter_count(statement) >= 2)
            check(sqlite3_bind_int64(statement, 2, id));
        read_all(statement);
    }
    check(sqlite3_exec(db, "COMMIT", 0, 0, 0));
    sqlite3_close(db);

    int alive = 0;
    if (pid) {
        int file = open(anchor, O_RDONLY | O_CLOEXEC);
        alive = file >= 0 && flock(file, LOCK_SH | LOCK_NB) != 0;
        char path[64], stat[1024];
        snprintf(path, sizeof path, "/proc/%ld/stat", pid);
        int proc = open(path, O_RDONLY | O_CLOEXEC);
        if (proc >= 0 && read(proc, stat, sizeof stat) <= 0)
            alive = 0;
    }
    if (!alive) {
        printf("%s/gateway: not running\n", argv[2]);
        return 3;
    }
    printf("%s/gateway: running, pid %ld\n  because    the kernel holds its lock\n  command    %s\n",
           argv[2], pid, command);
    return 0;
}
