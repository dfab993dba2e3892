// The module `_rips`: one function, by the stable interface of CPython 3.11 and later.
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <bit>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>

#include "rips.hpp"

namespace {

static_assert(std::endian::native == std::endian::little || std::endian::native == std::endian::big);

// A buffer of a Python object, released by the destructor.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() {
    if (view_.obj != nullptr) PyBuffer_Release(&view_);
  }

  bool get(PyObject *object, int flags) { return PyObject_GetBuffer(object, &view_, flags) == 0; }
  const Py_buffer &view() const { return view_; }

  bool aligned(std::size_t bytes) const { return reinterpret_cast<std::uintptr_t>(view_.buf) % bytes == 0; }

 private:
  Py_buffer view_{};
};

PyObject *refuse(const std::string &why) {
  PyErr_SetString(PyExc_ValueError, why.c_str());
  return nullptr;
}

bool is_float32(const Py_buffer &view) {
  if (view.itemsize != sizeof(float) || view.format == nullptr) return false;
  const char *format = view.format;
  if (*format == '@' || *format == '=' || *format == (std::endian::native == std::endian::little ? '<' : '>')) ++format;
  return std::strcmp(format, "f") == 0;
}

// Releases the GIL; signals that arrive are handled when it is held again.
class Unlocked {
 public:
  Unlocked() : thread_(PyEval_SaveThread()) {}
  Unlocked(const Unlocked &) = delete;
  Unlocked &operator=(const Unlocked &) = delete;
  ~Unlocked() { PyEval_RestoreThread(thread_); }

  static bool interrupted(void *context) {
    auto &self = *static_cast<Unlocked *>(context);
    PyEval_RestoreThread(self.thread_);
    const bool raised = PyErr_CheckSignals() != 0;
    self.thread_ = PyEval_SaveThread();
    return raised;
  }

 private:
  PyThreadState *thread_;
};

PyObject *as_bytes(const rips::Bars &bars) {
  static_assert(sizeof(rips::Bar) == 2 * sizeof(float));
  return PyBytes_FromStringAndSize(reinterpret_cast<const char *>(bars.data()),
                                   static_cast<Py_ssize_t>(bars.size() * sizeof(rips::Bar)));
}

// Result of a computation: bars, the limit that it reached, or what is wrong with the matrix.
struct Outcome {
  std::optional<rips::Diagram> diagram;
  rips::Limit limit{};
  std::string unusable;
};

// `over`: whether the ranks may overwrite the distances.
Outcome compute(const Py_buffer &matrix, bool over, int max_dim, const rips::Kernels &kernels, rips::Control &control) {
  Outcome outcome;
  try {
    auto *const memory = static_cast<std::byte *>(matrix.buf);
    const rips::Distances distances(memory, static_cast<std::size_t>(matrix.shape[0]),
                                    static_cast<std::size_t>(matrix.shape[1]), control);
    outcome.diagram = rips::persistence(distances, over ? memory : nullptr, max_dim, kernels, control);
  } catch (const rips::Reached &reached) {
    outcome.limit = reached.limit;
  } catch (const rips::Unusable &why) {
    outcome.unusable = why.what();
  } catch (const std::bad_alloc &) {
    outcome.limit = rips::Limit::memory;
  } catch (const std::length_error &) {
    outcome.limit = rips::Limit::memory;
  }
  return outcome;
}

PyObject *as_python(const Outcome &outcome) {
  if (outcome.limit == rips::Limit::signal) return nullptr;  // the exception is set
  if (!outcome.unusable.empty()) return refuse(outcome.unusable);
  if (!outcome.diagram) return PyLong_FromLong(static_cast<long>(outcome.limit));
  PyObject *const bars = PyTuple_New(3);
  if (bars == nullptr) return nullptr;
  for (std::size_t dimension = 0; dimension < 3; ++dimension) {
    PyObject *const bytes = as_bytes((*outcome.diagram)[dimension]);
    if (bytes == nullptr || PyTuple_SetItem(bars, static_cast<Py_ssize_t>(dimension), bytes) != 0) {
      Py_DecRef(bars);
      return nullptr;
    }
  }
  return bars;
}

// What is wrong with the shape or the alignment of a matrix; empty if nothing is.
std::string unfit(const Buffer &matrix, bool over) {
  const Py_buffer &view = matrix.view();
  if (view.ndim != 2) return "the distances are no square matrix";
  if (!is_float32(view)) return "the distances are not float32 of this machine";
  if (!matrix.aligned(over ? rips::kRowAlignment : alignof(float))) return "the distances are not aligned";
  const auto count = static_cast<std::size_t>(view.shape[0]);
  const std::size_t wanted = over ? rips::Edges::stride(count) : count;
  if (static_cast<std::size_t>(view.shape[1]) == wanted) return {};
  return over ? "the rows of the distances have another length than ranks need" : "the distances are no square matrix";
}

PyObject *bars(PyObject *, PyObject *arguments) {
  PyObject *matrix_object, *state_object;
  int max_dim, signals, over = 0;
  double seconds;
  long long memory;
  const char *kernel;
  if (!PyArg_ParseTuple(arguments, "OidLOpz|p:bars", &matrix_object, &max_dim, &seconds, &memory, &state_object, &signals,
                        &kernel, &over))
    return nullptr;
  Buffer matrix, state;
  if (!matrix.get(matrix_object, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (over != 0 ? PyBUF_WRITABLE : 0))) return nullptr;
  if (!state.get(state_object, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)) return nullptr;
  if (const std::string why = unfit(matrix, over != 0); !why.empty()) return refuse(why);
  if (state.view().len < static_cast<Py_ssize_t>(sizeof(rips::State)) || !state.aligned(alignof(rips::State)))
    return refuse("the state is too short, or not aligned");
  if (max_dim < 0 || max_dim > 2) return refuse("the engine computes H0 to H2");
  const rips::Kernels *const kernels = rips::kernels(kernel);
  if (kernels == nullptr) return refuse(std::string("this processor does not have ") + kernel);

  auto *const words = static_cast<rips::State *>(state.view().buf);
  Outcome outcome;
  std::optional<rips::Control> control;
  {
    Unlocked unlocked;
    control.emplace(words, seconds, memory, signals != 0 ? Unlocked::interrupted : nullptr, &unlocked);
    outcome = compute(matrix.view(), over != 0, max_dim, *kernels, *control);
  }
  return as_python(outcome);
}

PyMethodDef methods[] = {
    {"bars", bars, METH_VARARGS,
     "bars(distances, max_dim, seconds, memory, state, signals, kernel, over=False)\n--\n\n"
     "Bars of H0 to H2 as bytes of float32 pairs, or the number of the limit that was reached."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef_Slot slots[] = {{0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_rips", "Vietoris-Rips persistence, H0 to H2.", 0, methods, slots,
                      nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__rips() { return PyModuleDef_Init(&module); }
