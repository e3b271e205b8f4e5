# Short names for the scripts. `just` is optional: each line below is the whole of its recipe.

# What has to hold before a change lands.
ci:
    .ci/run

# All tests, or those that the arguments name.
test *arguments:
    cargo test {{ arguments }}

# Races longer, and damages more stores.
long:
    INCUMBENT_TEST_ROUNDS=long cargo test

# Random work under faults on one store, and a checker of its whole history.
soak duration="30min":
    INCUMBENT_SOAK={{ duration }} cargo test --test history soak -- --exact --nocapture

# One table of all operations and their peers, or of those with these words in their names; other
# commands, like `just bench idle 10 600`, are in docs/benchmarks.md.
bench *arguments:
    cargo bench -- {{ arguments }}

# The Python package: wheel, tests, types; `just python --quick -k fork` for a part of it.
python *arguments:
    .ci/python {{ arguments }}

# The other platforms: Windows under wine, macOS compiled.
ports:
    .ci/windows
    .ci/macos

# What programs are compiled against: `just surface --update` writes it down.
surface *arguments:
    .ci/surface {{ arguments }}

# Each planted fault, or those that the arguments name, with the test that has to find it.
planted *faults:
    .ci/planted {{ faults }}

# What cargo-mutants changes and no test notices: `liveness`, or `sample SEED`. Takes hours.
mutants *what="liveness":
    .ci/mutants {{ what }}

# The suite beside a load, to find tests that lean on time.
busy rounds="5":
    .ci/busy {{ rounds }}

# Each call of each verb fails, or is its last: `just faults 3/8 30` is the third of eight parts, and
# 30 minutes at most for each of three walks. Prints what was covered.
faults part="1/1" minutes="":
    INCUMBENT_FAULTS=all INCUMBENT_FAULTS_PART={{ part }} INCUMBENT_FAULTS_MINUTES={{ minutes }} \
        cargo test --test it -- --nocapture --test-threads=1 faults::calls
