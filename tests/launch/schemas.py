"""The part of two public schemas that the launch files use; unknown keys are errors.

JobSet v1alpha2 (jobset.sigs.k8s.io/docs/reference) over batch/v1 Job and core/v1 Pod; SkyPilot's
task YAML (docs.skypilot.co, "SkyPilot YAML").
"""


def fields(required: dict, **optional) -> dict:
    """An object with these fields and no others."""
    return {'type': 'object', 'properties': required | optional, 'required': list(required),
            'additionalProperties': False}


def each(items: dict) -> dict:
    return {'type': 'array', 'items': items, 'minItems': 1}


def one_of(*values) -> dict:
    return {'enum': list(values)}


TEXT, COUNT, ANY = {'type': 'string'}, {'type': 'integer', 'minimum': 0}, {'type': 'object'}
NAME = {'type': 'string', 'pattern': '^[a-z]([-a-z0-9]*[a-z0-9])?$', 'maxLength': 63}
LABELS = {'type': 'object', 'additionalProperties': TEXT}

CONTAINER = fields(
    {'name': NAME, 'image': TEXT, 'resources': fields({'limits': ANY})},
    args=each(TEXT),
    env=each(fields({'name': TEXT}, value=TEXT,
                    valueFrom=fields({'fieldRef': fields({'fieldPath': TEXT})}))),
    volumeMounts=each(fields({'name': NAME, 'mountPath': TEXT})),
)
POD = fields(
    {'restartPolicy': one_of('Never'), 'containers': each(CONTAINER)},  # podFailurePolicy needs it
    terminationGracePeriodSeconds=COUNT, nodeSelector=LABELS,
    securityContext=fields({'runAsNonRoot': one_of(True), 'fsGroup': COUNT}),
    volumes=each(fields({'name': NAME}, emptyDir=fields({'medium': one_of('Memory')}),
                        persistentVolumeClaim=fields({'claimName': NAME}))),
)
POD_RULE = fields(
    {'action': one_of('FailJob', 'Ignore', 'Count', 'FailIndex')},
    onExitCodes=fields({'operator': one_of('In', 'NotIn'), 'values': each(COUNT)}),
    onPodConditions=each(fields({'type': TEXT, 'status': one_of('True', 'False', 'Unknown')})),
)
JOB = fields(
    {'template': fields({'spec': POD})}, completionMode=one_of('Indexed', 'NonIndexed'),
    completions=COUNT, parallelism=COUNT, backoffLimit=COUNT,
    podFailurePolicy=fields({'rules': each(POD_RULE)}),
)
FAILURE_RULE = fields(
    {'name': TEXT,
     'action': one_of('FailJobSet', 'RestartJobSet', 'RestartJobSetAndIgnoreMaxRestarts')},
    onJobFailureReasons=each(one_of(
        'BackoffLimitExceeded', 'DeadlineExceeded', 'FailedIndexes', 'MaxFailedIndexesExceeded',
        'PodFailurePolicy')),
    targetReplicatedJobs=each(NAME),
)
JOBSET = fields({
    'apiVersion': one_of('jobset.x-k8s.io/v1alpha2'), 'kind': one_of('JobSet'),
    'metadata': fields({'name': NAME}, labels=LABELS, annotations=LABELS),
    'spec': fields(
        {'replicatedJobs': each(
            fields({'name': NAME, 'template': fields({'spec': JOB})}, replicas=COUNT))},
        failurePolicy=fields({'maxRestarts': COUNT}, rules=each(FAILURE_RULE)),
    ),
})

SKY = fields(
    {'run': TEXT}, name=NAME, workdir=TEXT, num_nodes={'type': 'integer', 'minimum': 1},
    setup=TEXT, envs=LABELS, volumes=LABELS,
    resources=fields(
        {}, infra=TEXT, use_spot={'type': 'boolean'},
        accelerators={'type': 'object', 'additionalProperties': {'type': ['number', 'null']}},
        job_recovery=fields({}, strategy=TEXT, max_restarts_on_errors=COUNT,
                            recover_on_exit_codes=each({'type': 'integer', 'maximum': 255})),
    ),
)
