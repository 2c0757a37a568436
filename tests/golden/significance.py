"""The golden numbers of src/eval/statistics.rs: scipy's bootstrap, statsmodels' Wilson interval and McNemar test.

    python tests/golden/significance.py      # needs numpy, scipy, statsmodels
"""

import numpy as np
from scipy.stats import bootstrap, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

for k, n in [(481, 1000), (0, 20), (20, 20), (3, 7)]:
    print("wilson", k, n, proportion_confint(k, n, method="wilson"))
for b, c in [(25, 48), (5, 1), (3, 3), (120, 180), (0, 9)]:
    print("mcnemar", b, c, repr(mcnemar([[0, b], [c, 0]], exact=True).pvalue))

values = np.array([float(i * i % 97) for i in range(200)])
options = dict(method="percentile", n_resamples=100_000, random_state=0, vectorized=True, batch=1000)
print("mean", bootstrap((values,), np.mean, **options).confidence_interval)
print("median", bootstrap((values,), np.median, **options).confidence_interval)
sums = values.reshape(40, 5).sum(axis=1)
print("clustered", bootstrap((sums,), lambda x, axis: x.sum(axis) / (5 * x.shape[axis]), **options).confidence_interval)

error = np.sqrt((0.18 - 0.06**2) / 500)
print("power", norm.sf(norm.ppf(0.975) - 0.06 / error) + norm.cdf(norm.ppf(0.025) - 0.06 / error))
