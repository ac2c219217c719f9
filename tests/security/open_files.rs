//! What processes have open: files that nobody sees any more.

use crate::runs::{answers, data_dir, is_root, start, submit};

/// A file that was removed while it is open is on the disk as before, whichever process has it open.
#[test]
fn files_without_a_name_are_counted_too() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    let service = start(dir.path(), &["--run-disk-bytes", "33554432"]);
    let written = "for _ in range(16): os.write(file, bytes(4 << 20))\ntime.sleep(60)\n";
    let open = "import mmap, os, time\nfile = os.open('outputs/u', os.O_RDWR | os.O_CREAT)\nos.unlink('outputs/u')\n";
    let mapped = "os.ftruncate(file, 64 << 20)\nmemory = mmap.mmap(file, 64 << 20)\nos.close(file)\n\
                  memory.write(bytes(64 << 20))\ntime.sleep(60)\n";
    let nameless = "import os, time\nfile = os.open('outputs', os.O_RDWR | os.O_TMPFILE)\n";
    for script in [format!("{open}{written}"), format!("{nameless}{written}"), format!("{open}{mapped}")] {
        let run = submit(&service, &script, &[]);
        let ended = service.until_status(&run, &["Failed"]);
        let detail = ended["detail"].as_str().expect("text");
        assert!(detail.contains("--run-disk-bytes allows 33554432"), "{script}: {ended:#}");
    }
    answers(&service);
}
