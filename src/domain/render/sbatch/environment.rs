//! The part of the script that finds an interpreter, and builds an environment where one is asked for.

use super::{super::packages::Packages, word};
use crate::domain::environment::Environment;

/// The interpreter that is there.
pub(super) fn user_managed(environment: &Environment) -> String {
    let named = environment.interpreter_path.as_deref().unwrap_or("python3");
    format!(
        "\n# Nothing is installed: this interpreter runs the script.\n[ -n \"${{PYTHON:-}}\" ] || PYTHON={}\n",
        word(named)
    )
}

fn lines(list: &[String], indent: &str) -> String {
    list.iter().map(|line| format!(" \\\n{indent}{}", word(line))).collect()
}

/// An environment that is built once and found again.
pub(super) fn managed(packages: &Packages, environment: &Environment) -> String {
    let mut text =
        "\n# The interpreter: $PYTHON if it is set, else an environment that is built once.\n".to_owned();
    for remark in &packages.remarks {
        text += &format!("# {}\n", remark.text.replace(['\n', '\r'], " "));
    }
    text += "estimatord_environments=\"${ENVIRONMENTS_DIR:-$HOME/.cache/estimatord/environments}\"\n";
    let key = packages.key(environment);
    if packages.local {
        text += "# It holds files of the source tree, which are this job's own.\n";
        text += "estimatord_job=\"${SLURM_JOB_ID:-$$}\"\n";
        text += &format!("estimatord_environment=\"$estimatord_environments/{key}-$estimatord_job\"\n");
        // Lines about files are read from where the requirements file is.
        text += "estimatord_requirements=\"$PWD/.estimatord-requirements-$estimatord_job.txt\"\n";
    } else {
        text += &format!("estimatord_environment=\"$estimatord_environments/{key}\"\n");
    }
    if !packages.conda.is_empty() {
        text += CONDA_TOOLS;
    }
    text += &creation(packages);
    text += &installation(packages);
    text += BUILD;
    if packages.local {
        text += REMOVAL;
    }
    text += USE;
    text
}

const CONDA_TOOLS: &str = r#"
estimatord_conda() {
    command -v conda || command -v mamba || command -v micromamba || {
        echo 'conda packages are asked for, and there is no conda, mamba or micromamba on PATH.' >&2
        return 1
    }
}
"#;

/// `estimatord_create DIR`: an empty environment.
fn creation(packages: &Packages) -> String {
    if !packages.conda.is_empty() {
        let mut words = Vec::new();
        if !packages.channels.is_empty() {
            words.push("--override-channels".to_owned());
        }
        for channel in &packages.channels {
            words.extend(["--channel".to_owned(), channel.clone()]);
        }
        words.extend([packages.conda_python(), "pip".to_owned()]);
        words.extend(packages.conda.iter().cloned());
        return format!(
            "\nestimatord_create() {{\n    local conda\n    conda=$(estimatord_conda) || return 1\n    \
             \"$conda\" create --yes --prefix \"$1\"{}\n}}\n",
            lines(&words, "        ")
        );
    }
    let minors = packages.python_minors();
    let names: Vec<String> = minors.iter().map(|minor| format!("python3.{minor}")).collect();
    let (oldest, newest) =
        (minors.iter().min().copied().unwrap_or(8), minors.iter().max().copied().unwrap_or(8));
    let default = if packages.chainer { newest } else { 11 };
    format!(
        r#"
estimatord_base() {{
    local name
    for name in {names} python3; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, {oldest}) <= sys.version_info[:2] <= (3, {newest}))' \
            2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    if command -v uv >/dev/null; then
        echo 3.{default}
    else
        echo 'No Python from 3.{oldest} to 3.{newest} with its venv module is on PATH.' >&2
        return 1
    fi
}}

estimatord_create() {{
    local base
    base=$(estimatord_base) || return 1
    if command -v uv >/dev/null; then
        uv venv --python "$base" "$1"
    else
        "$base" -m venv "$1"
    fi
}}
"#,
        names = names.join(" "),
    )
}

/// `estimatord_install DIR`: what pip installs into it.
fn installation(packages: &Packages) -> String {
    if packages.requirements.is_empty() {
        return "\nestimatord_install() {\n    return 0\n}\n".to_owned();
    }
    let requirements = if packages.local { "$estimatord_requirements" } else { "$1/requirements.txt" };
    let mut text = "\nestimatord_install() {\n".to_owned();
    text += &format!("    local requirements=\"{requirements}\"\n");
    text += &format!(
        "    printf '%s\\n'{} >\"$requirements\" || return 1\n",
        lines(&packages.requirements, "        ")
    );
    text += "    local -a options=(-r \"$requirements\") build=()\n";
    if !packages.constraints.is_empty() {
        text += "    # Held back for building too: chainer comes as source, which the newest setuptools cannot build.\n";
        text += &format!(
            "    printf '%s\\n'{} >\"$1/constraints.txt\" || return 1\n",
            lines(&packages.constraints, "        ")
        );
        text += "    options+=(-c \"$1/constraints.txt\")\n";
    }
    text += "    if command -v uv >/dev/null; then\n";
    if !packages.constraints.is_empty() {
        text += "        build=(--build-constraints \"$1/constraints.txt\")\n";
    }
    text += "        uv pip install --compile-bytecode --python \"$1/bin/python\" \"${options[@]}\" \"${build[@]}\"\n";
    text += "        return\n    fi\n";
    if !packages.constraints.is_empty() {
        text += "    # pip before 25.3 takes the variable over to its builds, later ones have an option.\n";
        text += "    if \"$1/bin/python\" -m pip install --help | grep -q -- --build-constraint; then\n";
        text += "        build=(--build-constraint \"$1/constraints.txt\")\n    fi\n";
        text += "    PIP_CONSTRAINT=\"$1/constraints.txt\" \\\n    ";
    }
    text += "    \"$1/bin/python\" -m pip install --disable-pip-version-check \"${options[@]}\" \"${build[@]}\"\n}\n";
    text
}

/// Two jobs that want the same environment build it once, and one that is cut off leaves none that is half done: the
/// name that is looked for is a link, made at the end. A folder could not be renamed, its programs know their place.
const BUILD: &str = r#"
estimatord_build() {
    mkdir -p "$estimatord_environments" || return 1
    exec 9>"$estimatord_environment.lock" && flock 9 || return 1
    if [ ! -x "$estimatord_environment/bin/python" ]; then
        local built="$estimatord_environment.${SLURM_JOB_ID:-0}.$$"
        echo "Building the environment $estimatord_environment" >&2
        if ! { estimatord_create "$built" && estimatord_install "$built" &&
            ln -s "$built" "$built.link" && mv -T "$built.link" "$estimatord_environment"; }; then
            rm -rf "$built" "$built.link"
            return 1
        fi
    fi
    exec 9>&-
}
"#;

/// What belongs to one job goes with it.
const REMOVAL: &str = r#"
if [ -z "${PYTHON:-}" ]; then
    trap 'rm -rf "$estimatord_environment" "$estimatord_environment".* "$estimatord_requirements"' EXIT
fi
"#;

const USE: &str = r#"
if [ -z "${PYTHON:-}" ]; then
    if [ ! -x "$estimatord_environment/bin/python" ] && ! estimatord_build >&2; then
        echo 'The environment could not be built: the reason is above. Set PYTHON to use an interpreter of your own.' >&2
        exit 1
    fi
    PYTHON="$estimatord_environment/bin/python"
    export VIRTUAL_ENV="$estimatord_environment" PATH="$estimatord_environment/bin:$PATH"
fi
"#;
