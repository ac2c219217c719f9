//! Sources of every kind: sound ones, broken ones, hostile ones.

use super::*;

fn error_of(source: &str) -> String {
    Module::parse(source.as_bytes()).map(|_| ()).expect_err(source).to_string()
}

#[test]
fn sound_sources() {
    for source in [
        "",
        "\u{feff}import os\r\nprint('a')\r\n",
        "print(f'{x!r:>{width}} {{}} {d[\"a\"]:%Y-%m} \\N{EM DASH} {y=}')\n",
        "x = rf'\\{a}' f\"\"\"{\n b +\n c} }}\"\"\" 'plain {'\n",
        "def f(a, /, b: int = 1, *, c) -> None:\n\tif (n := a): return\n\nasync def g():\n    await h()\n",
        "match x:\n    case [1, *rest]:\n        pass\n",
        "x = 1 + \\\n    2\n# comment with ' and (\n\"\"\"doc ( ' \"\"\"\n",
        "x = 0x1F + 1_000 + 1.5e-3j; y = lambda a, b: (a, b)",
        "if True:\n    pass\n\x0c\nelse:\n    pass\n",
    ] {
        if let Err(error) = Module::parse(source.as_bytes()) {
            panic!("{source:?}: {error}");
        }
    }
}

#[test]
fn the_first_error_is_told_with_its_place() {
    for (source, place) in [
        ("\"\"\"Doc.\"\"\"\n\nprint(\"epoch\", 1\n", "line 3, column 6: `(` was never closed"),
        ("x = 1\ny = = 2\nz = (\n", "line 2, column 5: "),
        ("x = 'abc\n", "line 1, column 5: a string is not closed"),
        ("x = [1, 2)\n", "line 1, column 10: `)` stands where `]` has to come first"),
        ("x = 1)\n", "line 1, column 6: `)` closes nothing"),
        ("def f():\nreturn 1\n", "line 2, column 1: "),
        ("if x:\n    a\n  b\n", "line 3, column "),
        ("x = f'{a'\n", "line 1, column "),
        ("x = f'{a[\"b\"}'\n", "line 1, column "),
        ("x = f'a } b'\n", "line 1, column 9: "),
        ("é = 1; ü = $\n", "line 1, column 12: "),
        ("x = (\n\n\nimport os\ndef f(): pass\n", "line 1, column 5: `(` was never closed"),
        ("a\0b", "line 1, column 2: the source holds a NUL character"),
    ] {
        let error = error_of(source);
        assert!(error.starts_with(place), "{source:?}: {error}");
    }
    assert!(Module::parse(b"x = '\xff'").unwrap_err().to_string().starts_with("line 1, column 6: a byte"));
    assert!(Module::parse(&vec![b'\n'; MAX_BYTES + 1]).unwrap_err().message.contains("1 MiB"));
}

#[test]
fn other_versions_of_python() {
    for source in [
        "print 'a'\n",
        "exec 'a'\n",
        "try:\n    pass\nexcept ValueError, e:\n    pass\n",
        "raise ValueError, 'a'\n",
        "x = 0777\n",
        "x = ur'a'\n",
        "x = `a`\n",
        "x = a <> b\n",
        "type X = int\n",
        "f'{x[\"a\"]' f\"{x[\"a\"]}\"\n",
    ] {
        error_of(source);
    }
}

#[test]
fn imports_that_matter() {
    let source = "
import os, a.b as c
from d.e import f, g
from . import h
from .i import j
try:
    import k
except ImportError:
    import l
else:
    import m
try:
    import n
except ValueError:
    import o
try:
    import p
except (KeyError, builtins.ModuleNotFoundError):
    pass
try:
    import q
except:
    pass
if typing.TYPE_CHECKING:
    import r
else:
    import s
if sys.version_info[0] < 3:
    import t
class A:
    def b(self):
        with c: import u
        for x in y:
            import v
        while z:
            pass
        else:
            import w
";
    let module = Module::parse(source.as_bytes()).unwrap();
    let imports = module.imports();
    let names: Vec<_> = imports.iter().map(|import| import.module.as_str()).collect();
    assert_eq!(names, ["os", "a.b", "d.e", "m", "n", "o", "s", "u", "v", "w"]);
    assert_eq!(
        (imports[2].line, imports[2].names.as_slice()),
        (3, ["f".to_owned(), "g".to_owned()].as_slice())
    );
}

/// As long as a source may be, and as deep as its kind allows.
#[test]
fn hostile_sources_are_refused_and_given_back() {
    let many = 100_000;
    let wide = |text: &str| text.repeat(many);
    for source in [
        wide("("),
        wide("["),
        wide("{"),
        wide("(]"),
        wide("a("),
        wide("-"),
        wide("not "),
        wide("~"),
        wide("a."),
        format!("x = a{}\n", wide(".b")),
        format!("x = a{}\n", wide("()")),
        format!("x = a{}\n", wide("[0]")),
        format!("x = 1{}\n", wide("+1")),
        format!("x = 1{}\n", wide("**1")),
        format!("x = {}1\n", wide("lambda: ")),
        format!("x = {}1\n", wide("lambda a, b: ")),
        format!("x = {}1\n", wide("1 if a else ")),
        format!("x = {}1\n", wide("await ")),
        format!("x = {}1\n", wide("yield ")),
        format!("x = {}1\n", wide("a := ")),
        format!("@{}a\n", wide("@")),
        wide("if a: "),
        wide("f'{"),
        wide("f'{f\"{"),
        wide("f\"{'"),
        wide("f'{x:{"),
        format!("f'{}'", wide("{")),
        format!("f'{{x:{}", wide("{y:")),
        format!("f\"{{(a b : c)}} text{}\"", wide(".a")),
        format!("f'''{{(a b\n : c)}} text{}'''", wide(".a")),
        format!("f'{{x!r' {}", wide("-")),
        format!("x = ({}\nimport os\n{}", wide("a,"), wide("-")),
        format!("({}\n{}", wide("(\n"), wide("-a\n")),
        (0..1_400).map(|depth| " ".repeat(depth) + "if a:\n").collect(),
        "(".to_owned()
            + &(0..1_400).map(|depth| "\n".to_owned() + &" ".repeat(depth) + "if a:").collect::<String>(),
        wide("try:\n"),
        wide("match a:\n case"),
        wide("class A[T: "),
        wide("case(a|"),
    ] {
        // Whatever is said of them: nothing falls over, neither reading nor giving back.
        let parsed = Module::parse(source.as_bytes());
        if let Ok(module) = &parsed {
            assert!(module.imports().is_empty());
        }
    }
}

#[test]
fn the_deepest_that_is_allowed_is_parsed() {
    let deep = nesting::MAX_DEPTH - 10;
    for source in [
        format!("x = a{}\n", ".b".repeat(deep)),
        format!("x = {}a\n", "-".repeat(deep)),
        format!("x = 1{}\n", "+1".repeat(deep)),
        format!("x = {}1{}\n", "(".repeat(190), ")".repeat(190)),
        format!("x = {}1{}\n", "[".repeat(190), "]".repeat(190)),
        format!("x = {}1{}\n", "f(a=".repeat(190), ")".repeat(190)),
        format!("x = {}1\n", "lambda: ".repeat(deep / 2 - 1)),
    ] {
        let module = Module::parse(source.as_bytes()).unwrap_or_else(|e| panic!("{e}: {}", &source[..40]));
        assert!(module.imports().is_empty());
    }
    // Long, and not deep.
    let rows = "    [1, 2.5, -3, 'a', {'k': (1, 2)}, f(x)],\n".repeat(20_000);
    assert!(Module::parse(format!("x = [\n{rows}]\n").as_bytes()).is_ok());
}
