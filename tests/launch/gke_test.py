"""launch/gke.sh and launch/gke_jobset.yaml: what kubectl is given."""

import pytest
import yaml

from tests.launch.fakes import ROOT

JOB = {'JOB_NAME': 'my-run', 'JOB_IMAGE': 'reg.io/scmdm_jax:0.1.0', 'JOB_CLAIM': 'runs'}


@pytest.fixture
def gke(fakes):
  fakes.recorder('kubectl', reads=True)

  def run(*arguments, **variables):
    return fakes.run('gke.sh', *arguments, **{**JOB, **variables})

  run.calls = fakes.calls
  run.fakes = fakes
  return run


def applied(gke, *arguments):
  """The documents that `kubectl apply` got and picks by its selector."""
  done = gke('run', *arguments)
  assert (done.returncode, done.stderr) == (0, '')
  words, manifest, _ = gke.calls()[-1]
  assert words[0] == 'apply'
  assert words[2:] == ['--filename=-']
  key, value = words[1].removeprefix('--selector=').split('=')
  documents = list(yaml.safe_load_all(manifest))
  return [d for d in documents if d['metadata']['labels'][key] == value]


def pod(jobset):
  (job,) = jobset['spec']['replicatedJobs']
  return job['template']['spec']['template']['spec']


@pytest.mark.parametrize('kind', ['tpu', 'gpu'])
def test_one_jobset_with_the_command_word_for_word(gke, kind):
  words = ['python', 'a b', '', '*', "it's", '"', '\\', '-n', 'é\n: {', '&', '#']
  (jobset,) = applied(gke, kind, *words)
  assert jobset['kind'] == 'JobSet'
  assert jobset['metadata']['name'] == 'my-run'
  (container,) = pod(jobset)['containers']
  assert container['command'] == words
  assert container['image'] == JOB['JOB_IMAGE']
  (claim,) = [v for v in pod(jobset)['volumes'] if v['name'] == 'runs']
  assert claim['persistentVolumeClaim'] == {'claimName': 'runs'}


def test_kubernetes_does_not_expand_anything(gke):
  (jobset,) = applied(gke, 'tpu', 'echo', '$(HOME)', '$$', '${CLAIM}', '$x')
  command = pod(jobset)['containers'][0]['command']
  # In a command $$ stands for $, so that $$(X) is not the value of X.
  assert command == ['echo', '$$(HOME)', '$$$$', '$${CLAIM}', '$$x']


@pytest.mark.parametrize('kind', ['tpu', 'gpu'])
def test_pods_are_unprivileged_and_have_time_to_save(gke, kind):
  (jobset,) = applied(gke, kind, 'true')
  spec = pod(jobset)
  assert spec['securityContext']['runAsNonRoot'] is True
  assert spec['automountServiceAccountToken'] is False
  assert spec['terminationGracePeriodSeconds'] >= 120
  assert not [v for v in spec['volumes'] if 'hostPath' in v]
  (container,) = spec['containers']
  assert container['securityContext']['allowPrivilegeEscalation'] is False
  assert container['securityContext']['capabilities'] == {'drop': ['ALL']}
  resources = container['resources']
  assert resources['requests'] == resources['limits']


@pytest.mark.parametrize('kind', ['tpu', 'gpu'])
def test_saved_runs_start_again_and_mistakes_do_not(gke, kind):
  (jobset,) = applied(gke, kind, 'true')
  policy = jobset['spec']['failurePolicy']
  assert policy['maxRestarts'] > 0
  (rule,) = policy['rules']
  assert rule['action'] == 'FailJobSet'
  assert rule['onJobFailureReasons'] == ['PodFailurePolicy']
  (job,) = jobset['spec']['replicatedJobs']
  spec = job['template']['spec']
  assert spec['backoffLimit'] == 0
  (codes,) = spec['podFailurePolicy']['rules']
  assert codes['action'] == 'FailJob'
  # BadInput and DamagedData; not 75, after which the same command resumes.
  assert codes['onExitCodes']['values'] == [2, 3]
  assert codes['onExitCodes']['containerName'] == pod(jobset)['containers'][0]['name']
  assert pod(jobset)['restartPolicy'] == 'Never'  # Wanted by podFailurePolicy.


def test_tpu_hosts_fit_the_topology(gke):
  (jobset,) = applied(gke, 'tpu', 'true')
  (job,) = jobset['spec']['replicatedJobs']
  spec = job['template']['spec']
  a, b = pod(jobset)['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')
  chips = pod(jobset)['containers'][0]['resources']['limits']['google.com/tpu']
  assert spec['parallelism'] == spec['completions'] == int(a) * int(b) // chips


def test_gpu_processes_find_each_other(gke):
  (jobset,) = applied(gke, 'gpu', 'true')
  (job,) = jobset['spec']['replicatedJobs']
  variables = {v['name']: v for v in pod(jobset)['containers'][0]['env']}
  hosts = str(job['template']['spec']['parallelism'])
  assert variables['SCMDM_NUM_PROCESSES']['value'] == hosts
  # JobSet's name of pod 0 of job 0: <jobset>-<job>-0-0.<jobset>
  address = f'my-run-{job["name"]}-0-0.my-run:8476'
  assert variables['SCMDM_COORDINATOR']['value'] == address
  place = variables['SCMDM_PROCESS_ID']['valueFrom']['fieldRef']['fieldPath']
  assert place == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_logs_and_delete(gke):
  assert gke('logs').returncode == 0
  assert gke('delete').returncode == 0
  selector = (
    'jobset.sigs.k8s.io/jobset-name=my-run,batch.kubernetes.io/job-completion-index=0'
  )
  assert [words for words, _, _ in gke.calls()] == [
    ['logs', '--follow', '--tail=100', f'--selector={selector}'],
    ['delete', 'jobset', 'my-run'],
  ]


def test_dry_run_prints_the_manifest_and_runs_nothing(gke):
  done = gke('run', 'tpu', 'true', DRY_RUN='1')
  assert gke.calls() == []
  manifest, _, command = done.stdout.rpartition('\n+ ')
  assert len(list(yaml.safe_load_all(manifest))) == 2
  assert command == 'kubectl apply --selector=accelerator=tpu --filename=-\n'


def test_failure_of_kubectl_is_the_exit_code(gke):
  gke.fakes.recorder('kubectl', code=4)
  assert gke('delete').returncode == 4


@pytest.mark.parametrize('name', ['My', '1a', 'a-', 'a b', 'a' * 41])
def test_name_that_kubernetes_refuses_is_refused(gke, name):
  done = gke('delete', JOB_NAME=name)
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert f'JOB_NAME={name}; wanted' in done.stderr
  assert gke.calls() == []


@pytest.mark.parametrize(
  'words', [['apply'], ['run'], ['run', 'cpu', 'true'], ['run', 'tpu']]
)
def test_wrong_words_are_one_line(gke, words):
  done = gke(*words)
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert gke.calls() == []


def test_file_itself_is_yaml():
  text = (ROOT / 'launch' / 'gke_jobset.yaml').read_text()
  labels = [d['metadata']['labels'] for d in yaml.safe_load_all(text)]
  assert labels == [{'accelerator': 'tpu'}, {'accelerator': 'gpu'}]
