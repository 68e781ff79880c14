"""Posts that are repeated with their id."""

from zaqar.storage import errors

from zaqar_gevent.storage.sqlite import posting
from zaqar_gevent.storage.sqlite.options import MESSAGE_GROUP

ROW = (60, 0.0, 9e9, 0.0, None, None, '1', False)


def rows_of(store, table):
    statement = f'SELECT count(*) FROM {table}'
    return store.database.scan(lambda connection: connection.execute(statement).fetchone()[0])


def post(store, *bodies, post_id, queue='q'):
    messages = [{'ttl': 300, 'body': body} for body in bodies]
    messages[0]['post_id'] = post_id
    return store.messages.post(queue, messages, None)


def test_a_repeated_post_has_the_ids_it_had_and_stores_nothing(store):
    ids = post(store, 1, 2, post_id='once')
    assert post(store, 1, 2, post_id='once') == ids
    assert store.bodies() == [1, 2]


def test_an_id_is_of_its_queue_alone(store):
    store.queues.create('r')
    assert post(store, 1, post_id='once') != post(store, 1, post_id='once', queue='r')
    assert (store.bodies('q'), store.bodies('r')) == ([1], [1])


def test_a_queue_that_was_deleted_forgets_what_was_posted(store):
    post(store, 1, post_id='once')
    store.queues.delete('q')
    store.queues.create('q')
    post(store, 1, post_id='once')
    assert store.bodies() == [1]


def test_what_has_been_worked_off_is_not_posted_again(store):
    [message_id] = post(store, 1, post_id='once')
    store.messages.delete('q', message_id)
    assert post(store, 1, post_id='once') == [message_id]
    assert store.bodies() == []


def test_repeated_posts_of_one_transaction_are_made_once(store):
    posts = [
        posting.Post('', 'q', [ROW] * 2, True, 'a', 9e9),
        posting.Post('', 'missing', [ROW], True, 'a', 9e9),
        posting.Post('', 'q', [ROW], True),
        posting.Post('', 'q', [ROW] * 2, True, 'a', 9e9),
        posting.Post('', 'q', [ROW], True, 'b', 9e9),
    ]
    first, missing, plain, again, other = store.database.write(
        lambda cursor: posting.post(cursor, [(one,) for one in posts])
    )
    assert first == again
    assert isinstance(missing, errors.QueueDoesNotExist)
    assert len({first, plain, other}) == 3
    assert len(store.list()) == 4


def test_an_id_is_forgotten_after_its_time_and_its_receipt_collected(store, clock):
    seconds = store.conf[MESSAGE_GROUP].idempotency_seconds
    post(store, 1, post_id='once')
    clock.advance(seconds - 1)
    post(store, 1, post_id='once')
    assert store.bodies() == [1]
    clock.advance(2)
    store.data.gc()
    assert rows_of(store, 'receipts') == 0
    again = post(store, 1, post_id='once')
    assert [message['id'] for message in store.list()] == again


def test_posts_without_an_id_leave_no_receipt(store):
    store.post(1, 2)
    assert rows_of(store, 'receipts') == 0
