"""Refuses import circles of any size, over modules, with the imports that are for types alone."""

import sys

import grimp
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

graph = grimp.build_graph("maskedflow", exclude_type_checking_imports=False, cache_dir=None)
modules = sorted(graph.modules)
place = {module: i for i, module in enumerate(modules)}
pairs = [
    (place[module], place[imported])
    for module in modules
    for imported in graph.find_modules_directly_imported_by(module)
]
importing, imported = np.array(pairs).T
imports = coo_array((np.ones(len(pairs)), (importing, imported)), (len(modules),) * 2)
_, circle = connected_components(imports, connection="strong")
found = [np.flatnonzero(circle == which) for which in np.flatnonzero(np.bincount(circle) > 1)]
sys.exit("\n".join(f"circle: {', '.join(modules[i] for i in one)}" for one in found) or None)
