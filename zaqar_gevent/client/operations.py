"""Every operation that a server may offer, by its WebSocket action.

Written by `tox -e genoperations` from the declarations in zaqar_gevent/api.
"""

from __future__ import annotations

from zaqar_gevent.client.operation import Operation, Repeat

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation(
            name='message_post',
            method='POST',
            path='/v2/queues/{queue_name}/messages',
            repeat=Repeat(given='post_id'),
        ),
        Operation(
            name='topic_message_post',
            method='POST',
            path='/v2/topics/{topic_name}/messages',
            repeat=Repeat(given='post_id'),
        ),
        Operation(
            name='message_list',
            method='GET',
            path='/v2/queues/{queue_name}/messages',
            query={
                'marker': 'marker',
                'limit': 'limit',
                'echo': 'echo',
                'include_claimed': 'include_claimed',
                'include_delayed': 'include_delayed',
                'wait': 'wait',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='topic_message_list',
            method='GET',
            path='/v2/topics/{topic_name}/messages',
            query={
                'marker': 'marker',
                'limit': 'limit',
                'echo': 'echo',
                'include_claimed': 'include_claimed',
                'include_delayed': 'include_delayed',
                'wait': 'wait',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='message_get_many',
            method='GET',
            path='/v2/queues/{queue_name}/messages',
            query={
                'ids': 'message_ids',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='topic_message_get_many',
            method='GET',
            path='/v2/topics/{topic_name}/messages',
            query={
                'ids': 'message_ids',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='message_get',
            method='GET',
            path='/v2/queues/{queue_name}/messages/{message_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_message_get',
            method='GET',
            path='/v2/topics/{topic_name}/messages/{message_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='message_delete',
            method='DELETE',
            path='/v2/queues/{queue_name}/messages/{message_id}',
            query={
                'claim_id': 'claim_id',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='topic_message_delete',
            method='DELETE',
            path='/v2/topics/{topic_name}/messages/{message_id}',
            query={
                'claim_id': 'claim_id',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='message_delete_many',
            method='DELETE',
            path='/v2/queues/{queue_name}/messages',
            query={
                'ids': 'message_ids',
                'claim_ids': 'claim_ids',
                'pop': 'pop',
            },
            repeat=Repeat(absent='pop'),
        ),
        Operation(
            name='topic_message_delete_many',
            method='DELETE',
            path='/v2/topics/{topic_name}/messages',
            query={
                'ids': 'message_ids',
                'claim_ids': 'claim_ids',
                'pop': 'pop',
            },
            repeat=Repeat(absent='pop'),
        ),
        Operation(
            name='message_ack_many',
            method='POST',
            path='/v2/queues/{queue_name}/messages/ack',
        ),
        Operation(
            name='message_release_many',
            method='POST',
            path='/v2/queues/{queue_name}/messages/release',
        ),
        Operation(
            name='message_reject_many',
            method='POST',
            path='/v2/queues/{queue_name}/messages/reject',
        ),
        Operation(
            name='message_extend_many',
            method='POST',
            path='/v2/queues/{queue_name}/messages/extend',
            repeat=Repeat(),
        ),
        Operation(
            name='claim_create',
            method='POST',
            path='/v2/queues/{queue_name}/claims',
            query={
                'limit': 'limit',
                'wait': 'wait',
            },
        ),
        Operation(
            name='claim_get',
            method='GET',
            path='/v2/queues/{queue_name}/claims/{claim_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='claim_update',
            method='PATCH',
            path='/v2/queues/{queue_name}/claims/{claim_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='claim_delete',
            method='DELETE',
            path='/v2/queues/{queue_name}/claims/{claim_id}',
            query={
                'delay': 'delay',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='get_versions',
            method='GET',
            path='/',
            repeat=Repeat(),
        ),
        Operation(
            name='get_capabilities',
            method='GET',
            path='/v2/capabilities',
            repeat=Repeat(),
        ),
        Operation(
            name='get_home_doc',
            method='GET',
            path='/v2/',
            repeat=Repeat(),
        ),
        Operation(
            name='ping_node',
            method='GET',
            path='/v2/ping',
            repeat=Repeat(),
        ),
        Operation(
            name='check_node_health',
            method='GET',
            path='/v2/health',
            repeat=Repeat(),
        ),
        Operation(
            name='quota_get',
            method='GET',
            path='/v2/quotas',
            repeat=Repeat(),
        ),
        Operation(
            name='get_openapi',
            method='GET',
            path='/v2/openapi.json',
            repeat=Repeat(),
        ),
        Operation(
            name='get_asyncapi',
            method='GET',
            path='/v2/asyncapi.json',
            repeat=Repeat(),
        ),
        Operation(
            name='flavor_list',
            method='GET',
            path='/v2/flavors',
            query={
                'detailed': 'detailed',
                'limit': 'limit',
                'marker': 'marker',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='flavor_get',
            method='GET',
            path='/v2/flavors/{flavor_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='flavor_create',
            method='PUT',
            path='/v2/flavors/{flavor_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='flavor_update',
            method='PATCH',
            path='/v2/flavors/{flavor_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='flavor_delete',
            method='DELETE',
            path='/v2/flavors/{flavor_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='pool_list',
            method='GET',
            path='/v2/pools',
            query={
                'detailed': 'detailed',
                'limit': 'limit',
                'marker': 'marker',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='pool_get',
            method='GET',
            path='/v2/pools/{pool_name}',
            query={
                'detailed': 'detailed',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='pool_create',
            method='PUT',
            path='/v2/pools/{pool_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='pool_update',
            method='PATCH',
            path='/v2/pools/{pool_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='pool_delete',
            method='DELETE',
            path='/v2/pools/{pool_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='queue_list',
            method='GET',
            path='/v2/queues',
            query={
                'marker': 'marker',
                'limit': 'limit',
                'detailed': 'detailed',
                'name': 'name',
                'with_count': 'with_count',
            },
            filters='metadata',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_list',
            method='GET',
            path='/v2/topics',
            query={
                'marker': 'marker',
                'limit': 'limit',
                'detailed': 'detailed',
                'name': 'name',
                'with_count': 'with_count',
            },
            filters='metadata',
            repeat=Repeat(),
        ),
        Operation(
            name='queue_create',
            method='PUT',
            path='/v2/queues/{queue_name}',
            payload='metadata',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_create',
            method='PUT',
            path='/v2/topics/{topic_name}',
            payload='metadata',
            repeat=Repeat(),
        ),
        Operation(
            name='queue_get',
            method='GET',
            path='/v2/queues/{queue_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_get',
            method='GET',
            path='/v2/topics/{topic_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='queue_delete',
            method='DELETE',
            path='/v2/queues/{queue_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_delete',
            method='DELETE',
            path='/v2/topics/{topic_name}',
            repeat=Repeat(),
        ),
        Operation(
            name='queue_update',
            method='PATCH',
            path='/v2/queues/{queue_name}',
            payload='changes',
            media_type='application/openstack-messaging-v2.0-json-patch',
            repeat=Repeat(changes=('add', 'replace')),
        ),
        Operation(
            name='topic_update',
            method='PATCH',
            path='/v2/topics/{topic_name}',
            payload='changes',
            media_type='application/openstack-messaging-v2.0-json-patch',
            repeat=Repeat(changes=('add', 'replace')),
        ),
        Operation(
            name='queue_get_stats',
            method='GET',
            path='/v2/queues/{queue_name}/stats',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_get_stats',
            method='GET',
            path='/v2/topics/{topic_name}/stats',
            repeat=Repeat(),
        ),
        Operation(
            name='queue_purge',
            method='POST',
            path='/v2/queues/{queue_name}/purge',
            optional_body=True,
        ),
        Operation(
            name='topic_purge',
            method='POST',
            path='/v2/topics/{topic_name}/purge',
            optional_body=True,
        ),
        Operation(
            name='queue_share',
            method='POST',
            path='/v2/queues/{queue_name}/share',
            repeat=Repeat(),
        ),
        Operation(
            name='redrive_create',
            method='POST',
            path='/v2/queues/{queue_name}/redrives',
        ),
        Operation(
            name='redrive_list',
            method='GET',
            path='/v2/queues/{queue_name}/redrives',
            query={
                'marker': 'marker',
                'limit': 'limit',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='redrive_get',
            method='GET',
            path='/v2/queues/{queue_name}/redrives/{redrive_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='redrive_delete',
            method='DELETE',
            path='/v2/queues/{queue_name}/redrives/{redrive_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='subscription_list',
            method='GET',
            path='/v2/queues/{queue_name}/subscriptions',
            query={
                'marker': 'marker',
                'limit': 'limit',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='topic_subscription_list',
            method='GET',
            path='/v2/topics/{topic_name}/subscriptions',
            query={
                'marker': 'marker',
                'limit': 'limit',
            },
            repeat=Repeat(),
        ),
        Operation(
            name='subscription_create',
            method='POST',
            path='/v2/queues/{queue_name}/subscriptions',
        ),
        Operation(
            name='topic_subscription_create',
            method='POST',
            path='/v2/topics/{topic_name}/subscriptions',
        ),
        Operation(
            name='subscription_get',
            method='GET',
            path='/v2/queues/{queue_name}/subscriptions/{subscription_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_subscription_get',
            method='GET',
            path='/v2/topics/{topic_name}/subscriptions/{subscription_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='subscription_update',
            method='PATCH',
            path='/v2/queues/{queue_name}/subscriptions/{subscription_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_subscription_update',
            method='PATCH',
            path='/v2/topics/{topic_name}/subscriptions/{subscription_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='subscription_delete',
            method='DELETE',
            path='/v2/queues/{queue_name}/subscriptions/{subscription_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_subscription_delete',
            method='DELETE',
            path='/v2/topics/{topic_name}/subscriptions/{subscription_id}',
            repeat=Repeat(),
        ),
        Operation(
            name='subscription_confirm',
            method='PUT',
            path='/v2/queues/{queue_name}/subscriptions/{subscription_id}/confirm',
            repeat=Repeat(),
        ),
        Operation(
            name='topic_subscription_confirm',
            method='PUT',
            path='/v2/topics/{topic_name}/subscriptions/{subscription_id}/confirm',
            repeat=Repeat(),
        ),
        Operation(
            name='queue_consume',
        ),
        Operation(
            name='message_ack',
        ),
        Operation(
            name='message_release',
        ),
        Operation(
            name='message_reject',
        ),
        Operation(
            name='consumer_stop',
            repeat=Repeat(),
        ),
        Operation(
            name='subscription_resume',
            repeat=Repeat(),
        ),
        Operation(
            name='hello',
            repeat=Repeat(),
        ),
        Operation(
            name='ping',
            repeat=Repeat(),
        ),
        Operation(
            name='authenticate',
            repeat=Repeat(),
        ),
    )
}
