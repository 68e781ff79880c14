"""Upstream's tests of its REST transport, on Redis."""

from tests.compat.test_wsgi import CASES

# These register pools by addresses of a form that upstream's Redis driver cannot read.
POOLED = (
    'TestFlavorsMongoDB',
    'TestMessagesMongoDBPooled',
    'TestPoolsMongoDB',
    'TestSubscriptionsMongoDB',
)

globals().update(
    {name: case for name, case in CASES.items() if name not in POOLED and 'Faulty' not in name}
)
