"""How often compiled code would have left its buffers: counted in checked mode (runtime.simd.memory), all kernels
together. What such a store would have written goes to a scrap of memory."""

import ctypes

overruns = ctypes.c_int64(0)
scrap = (ctypes.c_ubyte * 4096)()
