"""The launch files: shell, schemas, the image, and that the commands in them parse."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from schemas import JOBSET, SKY

from repdiff import main

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / 'launch'
SHELL = [*sorted(LAUNCH.glob('*.sh')), LAUNCH / 'slurm.sbatch', ROOT / '.ci' / 'run']
FILES = [*SHELL[:-1], LAUNCH / 'gke.yaml', LAUNCH / 'sky.yaml', LAUNCH / 'Dockerfile']
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def parse(monkeypatch, options: list[str]):
    """What repdiff.main makes of a command line in a launch file."""
    argv = ['main', *options]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', argv)  # where config_flags looks for the keys given
    for name in [name for name in main.FLAGS if name.startswith('config.')]:
        delattr(main.FLAGS, name)  # of an earlier command line
    return main.parse(argv)


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def test_all_files_are_seen():
    seen = {file.name for file in FILES} | {'Dockerfile.dockerignore'}
    assert seen == {file.name for file in LAUNCH.iterdir()}


@pytest.mark.parametrize('file', SHELL, ids=lambda file: file.name)
def test_shell_is_sound(file):
    subprocess.run(['bash', '-n', file], check=True)
    checker = shutil.which('shellcheck') or shutil.which(
        'shellcheck', path=Path(sys.executable).parent)
    if checker is None:
        pytest.skip('no shellcheck')
    done = subprocess.run([checker, '-x', file.relative_to(ROOT)], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_each_file_says_how_it_is_used(file):
    header = re.match(r'(#.*\n)+', file.read_text()).group()
    assert file.name in header or 'Sourced by' in header


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_commands_and_extras_are_real(file, monkeypatch):
    text = file.read_text().replace('\\\n#', ' ').replace('\\\n', ' ')
    lines = [re.split(r'\s{3,}(?=[a-z])', line)[0].strip('# ') for line in text.splitlines()]
    for line in lines:
        for options in re.findall(r'--config=\w[^\'"$]*', line):
            parse(monkeypatch, shlex.split(options.partition(';;')[0].replace('"$@"', '')))
    found = re.findall(r'EXTRAS[:=]-?([a-z][a-z,]*)|make_environment ([a-z][a-z,]*)', text)
    for extras in found:
        for extra in ''.join(extras).split(','):
            assert extra in PROJECT['optional-dependencies']


def test_gke_manifests_fit_their_schemas():
    disk, *jobsets = documents('gke.yaml')
    assert disk['kind'] == 'PersistentVolumeClaim'
    assert [document['metadata']['labels']['part'] for document in (disk, *jobsets)] == [
        'disk', 'tpu', 'gpu']
    for jobset in jobsets:
        jsonschema.validate(jobset, JOBSET)
        job = jobset['spec']['replicatedJobs'][0]['template']['spec']
        assert job['completions'] == job['parallelism']
        assert job['podFailurePolicy']['rules'][0]['onExitCodes']['values'] == [os.EX_TEMPFAIL]
        pod = job['template']['spec']
        named = {volume['name'] for volume in pod['volumes']}
        mounted = {mount['name'] for mount in pod['containers'][0]['volumeMounts']}
        assert named == mounted
        claim = pod['volumes'][0]['persistentVolumeClaim']['claimName']
        assert claim == disk['metadata']['name']


@pytest.mark.parametrize('part', [1, 2])
def test_gke_containers_run_the_main_job(part, monkeypatch):
    job = documents('gke.yaml')[part]['spec']['replicatedJobs'][0]['template']['spec']
    container = job['template']['spec']['containers'][0]
    config, workdir = parse(monkeypatch, container['args'])
    assert workdir.is_relative_to(container['volumeMounts'][0]['mountPath'])
    (chips,) = container['resources']['limits'].values()
    assert (chips * job['completions']) % config.mesh.fsdp == 0
    if part == 1:
        rows, columns = job['template']['spec']['nodeSelector'][
            'cloud.google.com/gke-tpu-topology'].split('x')
        assert chips * job['completions'] == int(rows) * int(columns)


def test_gke_pods_of_gpus_find_each_other():
    from repdiff import cluster

    jobset = documents('gke.yaml')[2]
    replicated = jobset['spec']['replicatedJobs'][0]
    job = replicated['template']['spec']
    container = job['template']['spec']['containers'][0]
    environment = {entry['name']: entry for entry in container['env']}
    assert set(environment) == {'JOBSET_NAME', 'REPLICATED_JOB_NAME', 'JOB_PARALLELISM'}
    assert environment['JOB_PARALLELISM']['value'] == str(job['parallelism'])
    found = cluster.of_jobset({
        'JOBSET_NAME': jobset['metadata']['name'], 'REPLICATED_JOB_NAME': replicated['name'],
        'JOB_PARALLELISM': '2', 'JOB_COMPLETION_INDEX': '1'})
    assert found['num_processes'] == 2 and found['process_id'] == 1


def test_sky_task_fits_its_schema_and_runs_the_main_job(monkeypatch):
    (task,) = documents('sky.yaml')
    jsonschema.validate(task, SKY)
    assert task['resources']['job_recovery']['recover_on_exit_codes'] == [os.EX_TEMPFAIL]
    for script in (task['setup'], task['run']):
        subprocess.run(['bash', '-n'], input=script, text=True, check=True)
    # The run script itself, with a `python` that only repeats what it is given.
    monkeypatch.chdir(ROOT)
    echo = 'python() { printf "%s\\n" "${@:3}"; }\n.() { true; }\n'
    said = subprocess.run(
        ['bash', '-c', echo + task['run'].replace('. .venv/bin/activate', '')], text=True,
        capture_output=True, check=True, env=os.environ | task['envs'] | {
            'SKYPILOT_NODE_IPS': '10.0.0.1\n10.0.0.2', 'SKYPILOT_NUM_NODES': '2',
            'SKYPILOT_NODE_RANK': '1'}).stdout.splitlines()
    config, workdir = parse(monkeypatch, said)
    assert main.FLAGS.coordinator == '10.0.0.1:8476'
    assert (main.FLAGS.processes, main.FLAGS.process) == (2, 1)
    assert str(workdir).startswith('/repdiff/') and config.cache.startswith('/repdiff/')
    parse(monkeypatch, ['--config=configs/hematoma.py', '--coordinator=', '--processes=1',
                        '--process=0'])  # as the other tests know them


def fake_command(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text('#!/usr/bin/env bash\n' + script)
    path.chmod(0o755)


@pytest.mark.parametrize(('code', 'requeued'), [(0, False), (75, True), (2, False)])
def test_slurm_queues_the_job_again_when_asked_to(tmp_path, code, requeued):
    log = tmp_path / 'log'
    fake_command(tmp_path, 'srun', f'echo "$@" >> {log}; exit {code}')
    fake_command(tmp_path, 'scontrol', f'echo scontrol "$@" >> {log}')
    checkout = tmp_path / 'checkout' / 'launch'
    checkout.mkdir(parents=True)
    (checkout / 'environment.sh').write_text('make_environment() { true; }\n')
    done = subprocess.run(
        ['bash', LAUNCH / 'slurm.sbatch'], env=os.environ | {
            'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '7',
            'SLURM_SUBMIT_DIR': str(checkout.parent)})
    assert done.returncode == code
    lines = log.read_text().splitlines()
    assert lines[0].endswith('python -m repdiff.main --config=configs/hematoma.py:xl')
    assert lines[1:] == (['scontrol requeue 7'] if requeued else [])


def test_slurm_has_a_task_for_each_gpu():
    text = (LAUNCH / 'slurm.sbatch').read_text()
    asked = dict(re.findall(r'^#SBATCH --([a-z-]+)=(\S+)', text, re.MULTILINE))
    assert asked['ntasks-per-node'] == asked['gpus-per-node']
    assert asked['signal'].startswith('TERM@')  # to the job's steps, not to this script


def test_tpu_hosts_start_again_when_asked_to(tmp_path):
    """`run` with gcloud pretended: each ssh runs here, and the run asks once to be resumed."""
    home = tmp_path / 'home'
    home.mkdir()
    fake_command(tmp_path, 'gcloud', '''
for argument; do case "$argument" in
  --command=*) HOME=%s bash -c "${argument#--command=}" ;;
  *.tar.gz) [ -f "$argument" ] && cp "$argument" /%s/sent.tar.gz ;;
esac; done''' % (home, tmp_path))
    fake_command(tmp_path, 'tar', f'''
[ "$1" = -czf ] && exec /usr/bin/env -i PATH=/usr/bin:/bin tar "$@"
mkdir -p {home}/repdiff/launch
cat > {home}/repdiff/launch/local.sh <<'LOCAL'
echo "$EXTRAS $*" >> ../ran
[ "$(wc -l < ../ran)" -ge 2 ] || exit 75
LOCAL
chmod +x {home}/repdiff/launch/local.sh''')
    fake_command(tmp_path, 'python3', 'exit 1')  # as of a Python that is too old
    fake_command(tmp_path, 'sudo', f'echo "$@" >> {tmp_path}/root')
    subprocess.run(
        ['bash', LAUNCH / 'tpu_vm.sh', 'run', 'name', '--config=configs/hematoma.py:paper'],
        check=True, env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'ZONE': 'us-east5-b'})
    line = 'tpu,ct --config=configs/hematoma.py:paper --config.cache=workdirs/cache'
    assert (home / 'ran').read_text().splitlines() == [line, line]
    assert 'install python3.11-venv' in (tmp_path / 'root').read_text()


def test_tpu_script_explains_itself():
    done = subprocess.run(['bash', LAUNCH / 'tpu_vm.sh'], capture_output=True, text=True)
    assert done.returncode == 2 and 'tpu_vm.sh create NAME' in done.stderr


def test_the_image_is_sound():
    text = (LAUNCH / 'Dockerfile').read_text()
    steps = [line.split(maxsplit=1) for line in text.replace('\\\n', ' ').splitlines()
             if line and not line.startswith('#')]
    names = [name for name, _ in steps]
    assert names[0] == 'FROM' and names[-2:] == ['USER', 'ENTRYPOINT']
    assert dict(steps)['USER'] == '1000'
    assert dict(steps)['ENTRYPOINT'] == '["python", "-m", "repdiff.main"]'  # gets signals itself
    minimum = PROJECT['requires-python'].removeprefix('>=').split('.')
    version = re.match(r'python:([\d.]+)-slim', steps[0][1]).group(1).split('.')
    assert [int(part) for part in version] >= [int(part) for part in minimum]
    sent = (LAUNCH / 'Dockerfile.dockerignore').read_text().splitlines()
    for name, rest in steps:
        if name == 'COPY':
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists() and f'!{source}' in sent
    assert {PROJECT['readme'], *PROJECT['license-files']} <= set(text.split())
