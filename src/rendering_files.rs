//! Writes the renderings of the test cases into files, for the checks with the real engines.

use std::{env, fs, path::Path};

use crate::domain::render::{Format, render, testing::for_each};

#[test]
#[ignore = "writes files for scripts/check-renderings.sh"]
fn renderings() {
    let base = env::var("ESTIMATORD_RENDERINGS_DIR").expect("ESTIMATORD_RENDERINGS_DIR says where");
    for format in Format::ALL {
        let folder = Path::new(&base).join(format.as_str());
        fs::create_dir_all(&folder).unwrap();
        let extension = format.file_name().rsplit('.').next().unwrap();
        for_each(|name, subject| {
            let rendering = render(format, subject);
            fs::write(folder.join(format!("{name}.{extension}")), &rendering.text).unwrap();
            let plan = serde_json::to_vec_pretty(subject.plan).unwrap();
            fs::write(folder.join(format!("{name}.plan.json")), plan).unwrap();
            let entries = serde_json::to_vec_pretty(&rendering.not_expressed).unwrap();
            fs::write(folder.join(format!("{name}.not_expressed.json")), entries).unwrap();
        });
    }
}
