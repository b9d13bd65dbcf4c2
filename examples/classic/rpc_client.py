from tornado import gen
from tornado.ioloop import IOLoop
from fastcore import rpc

@gen.coroutine
def f():
    # stream = yield connect('127.0.0.1', 8888)
    # yield write(stream, {'op': 'add', 'x': 1, 'y': 2})
    # result = yield read(stream)
    r = rpc(ip='127.0.0.1', port=8888)
    result = yield r.add(x=1, y=2)

    print(result)

IOLoop().run_sync(f)
