//! The shell scripts that run in a container. They use nothing but `/bin/sh` and shell builtins: that is all that is asked of
//! an image.

use std::fmt::Write as _;

use crate::domain::render::shell::quoted;

/// What a container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script<'a> {
    /// Set before the command starts; names are identifiers.
    pub variables: &'a [(String, String)],
    /// Directories that are put before what the image itself has in lists such as `PATH`.
    pub in_front: &'a [(&'static str, String)],
    /// Where `started`, `usage` and `status` are written.
    pub records: &'a str,
    /// Where standard output and error go, together: through the runtime their order would be lost.
    pub log: &'a str,
    /// The command, one element an argument.
    pub command: &'a [String],
}

/// The script that starts the command, and writes down how it ended and what it used.
///
/// Variables and arguments stand in the script and not on the runtime's command line: that has a limit, and anybody
/// on the machine can read it.
#[must_use]
pub fn launch_script(script: &Script<'_>) -> String {
    let mut text = String::from("#!/bin/sh\nunset TINI_KILL_PROCESS_GROUP\n");
    for (name, value) in script.variables {
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    for (list, directory) in script.in_front {
        let _ = writeln!(text, "export {list}={}\"${{{list}:+:${list}}}\"", quoted(directory));
    }
    text.push_str("set --");
    for word in script.command {
        text.push(' ');
        text.push_str(&quoted(word));
    }
    let _ = writeln!(text, "\nrecords={} log={}", quoted(script.records), quoted(script.log));
    text.push_str(WATCH);
    text
}

/// TERM goes to the whole process group. The shell outlives it: how the command ended is still to be written.
const WATCH: &str = r#": >"$records/started" || exit 125
trap : TERM
"$@" >>"$log" 2>&1
status=$?
{
    for file in /sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes; do
        if [ -r "$file" ] && read -r value <"$file"; then
            echo "peak_memory_bytes $value"
            break
        fi
    done
    if [ -r /sys/fs/cgroup/cpu.stat ]; then
        while read -r key value; do
            [ "$key" = usage_usec ] && echo "cpu_microseconds $value"
        done </sys/fs/cgroup/cpu.stat
    elif [ -r /sys/fs/cgroup/cpuacct/cpuacct.usage ] && read -r value </sys/fs/cgroup/cpuacct/cpuacct.usage; then
        echo "cpu_microseconds $((value / 1000))"
    fi
} >"$records/usage"
# Of one short write there is all or nothing.
echo "$status" >"$records/status"
exit "$status"
"#;

/// The script that gives one MPI rank a log of its own, then becomes the command: log directory, number of ranks,
/// command. Of a word that begins with `=` the rest counts.
#[must_use]
pub const fn rank_script() -> &'static str {
    r#"#!/bin/sh
directory=$1 ranks=$2
shift 2
rank=${OMPI_COMM_WORLD_RANK:-${PMIX_RANK:-${PMI_RANK:-$SLURM_PROCID}}}
if [ "$ranks" = 1 ]; then
    log=$directory/std_log.txt
elif [ -n "$rank" ]; then
    log=$directory/std_log_$rank.txt
else
    echo "estimatord: the launcher told this process no rank" >&2
    exit 127
fi
exec >>"$log" 2>&1
for word do
    shift
    set -- "$@" "${word#=}"
done
exec "$@"
"#
}
