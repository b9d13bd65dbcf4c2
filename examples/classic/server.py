from tornado import gen
from tornado.ioloop import IOLoop
from fastcore import write, Server

def add(stream, x=None, y=None):  # simple handler, just a function
    return x + y

@gen.coroutine
def stream_data(stream, interval=1):  # complex handler, multiple responses
    data = 0
    while True:
        yield gen.sleep(interval)
        data += 1
        yield write(stream, data)

s = Server({'add': add, 'stream': stream_data})
s.listen(8888)

IOLoop.current().start()
