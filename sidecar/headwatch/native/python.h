/* What is used of Python's C interface, so that its headers need not be installed: all of it is of the stable ABI (3.11). */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct object object;
typedef struct {
  void *buf;
  object *obj;
  ssize_t len, itemsize;
  int readonly, ndim;
  char *format;
  ssize_t *shape, *strides, *suboffsets;
  void *internal;
} array; /* Py_buffer */

enum { READ = 0, WRITE = 1 }; /* PyBUF_SIMPLE, PyBUF_WRITABLE: side by side in memory, or refused */

int PyObject_GetBuffer(object *, array *, int);
void PyBuffer_Release(array *);
ssize_t PyTuple_Size(object *);
object *PyTuple_GetItem(object *, ssize_t);
long long PyLong_AsLongLong(object *);
object *PyErr_Occurred(void);
void PyErr_SetString(object *, const char *);
object *PyErr_Format(object *, const char *, ...);
extern object *PyExc_ValueError;

/* Set an exception and return 0. */
static inline int fail(const char *why) {
  if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, why);
  return 0;
}

static inline int take(array *to, object *from, int how) {
  if (from && PyObject_GetBuffer(from, to, how) == 0) return 1;
  to->obj = NULL;
  return fail("no buffer");
}

static inline void give(array *of, int count) {
  for (int i = 0; i < count; i++)
    if (of[i].obj) PyBuffer_Release(&of[i]);
}

static inline int fits(const array *of, int64_t bytes, const char *name) {
  if (of->len == bytes) return 1;
  PyErr_Format(PyExc_ValueError, "%s of %zd bytes where %zd are needed", name, of->len, (ssize_t)bytes);
  return 0;
}
