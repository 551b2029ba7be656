// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Evaluation of the tree, block by block. Inputs are taken from left to right onto a stack of
// partial results. After each, the two topmost are combined as often as they are the two halves of
// a node: how often is worked out once, in combines. At the end one result is left. A block of 512
// elements keeps the whole stack in the first cache level, and its partial results are local
// arrays, so that the loops vectorise although out may be one of the inputs.

#include "trireme/comm/reduction_tree.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/comm/float16.h"

// One clone per vector width, chosen when the program starts. The sanitizers' start-up code cannot
// run before the resolvers do.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define TRIREME_VECTOR_CLONES \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define TRIREME_VECTOR_CLONES
#endif
#define TRIREME_INLINE inline __attribute__((always_inline))

namespace trireme {
namespace {

constexpr int kBlock = 512;  // elements
constexpr int kMaxDepth = 25;

// How elements are stored, and in which type they are combined.
template <class T>
struct Plain {
  using Stored = T;
  using Value = T;
  static TRIREME_INLINE Value load(Stored x) { return x; }
  static TRIREME_INLINE Stored store(Value x) { return x; }
};
struct Bf16 {
  using Stored = std::uint16_t;
  using Value = float;
  static TRIREME_INLINE Value load(Stored x) { return bf16_to_f32(x); }
  static TRIREME_INLINE Stored store(Value x) { return f32_to_bf16(x); }
};
struct F16 {
  using Stored = std::uint16_t;
  using Value = float;
  static TRIREME_INLINE Value load(Stored x) { return f16_to_f32(x); }
  static TRIREME_INLINE Stored store(Value x) { return f32_to_f16(x); }
};

// The unsigned type in which integer overflow wraps. Narrow types are promoted to int, which holds
// every result but must not be narrowed through a sign.
template <class T>
using Wrapping = std::make_unsigned_t<std::common_type_t<T, int>>;

struct Sum {
  template <class T>
  static TRIREME_INLINE T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
    } else {
      return a + b;
    }
  }
};
struct Product {
  template <class T>
  static TRIREME_INLINE T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
    } else {
      return a * b;
    }
  }
};
struct Min {
  template <class T>
  static TRIREME_INLINE T apply(T a, T b) {
    return (a < b) | (a != a) ? a : b;  // NOLINT(misc-redundant-expression): a is NaN
  }
};
struct Max {
  template <class T>
  static TRIREME_INLINE T apply(T a, T b) {
    return (a > b) | (a != a) ? a : b;  // NOLINT(misc-redundant-expression): a is NaN
  }
};

template <class In, class Out, class Op>
struct Block {
  using Value = typename In::Value;
  alignas(64) Value partial[kBlock];

  TRIREME_INLINE void take(const typename In::Stored* __restrict x, int n) {
    for (int i = 0; i < n; ++i) partial[i] = In::load(x[i]);
  }
  TRIREME_INLINE void take_pair(const typename In::Stored* __restrict x,
                                const typename In::Stored* __restrict y, int n) {
    for (int i = 0; i < n; ++i) partial[i] = Op::apply(In::load(x[i]), In::load(y[i]));
  }
  TRIREME_INLINE void combine(const Block& right, int n) {
    const Value* __restrict y = right.partial;
    for (int i = 0; i < n; ++i) partial[i] = Op::apply(partial[i], y[i]);
  }
  TRIREME_INLINE void divide(Value divisor, int n) {
    for (int i = 0; i < n; ++i) partial[i] = partial[i] / divisor;
  }
  TRIREME_INLINE void give(typename Out::Stored* __restrict out, int n) const {
    for (int i = 0; i < n; ++i) out[i] = Out::store(partial[i]);
  }
};

// What to do: the inputs, how often to combine after each, and what a mean divides by.
struct Job {
  std::span<const void* const> inputs;
  const std::uint8_t* combines;
  int divisor;  // 0: nothing is divided
};

template <class In, class Out, class Op>
TRIREME_INLINE void reduce_block(const Job& job, std::int64_t at, int n,
                                 Block<In, Out, Op>* stack) {
  const auto input = [&](std::size_t i) {
    return static_cast<const typename In::Stored*>(job.inputs[i]) + at;
  };
  int depth = 0;
  for (std::size_t i = 0; i < job.inputs.size(); ++i) {
    int combines = job.combines[i];
    const bool pair = combines == 0 && i + 1 < job.inputs.size() && job.combines[i + 1] > 0;
    if (pair) {
      stack[depth++].take_pair(input(i), input(i + 1), n);
      combines = job.combines[++i] - 1;
    } else {
      stack[depth++].take(input(i), n);
    }
    for (; combines > 0; --combines, --depth) stack[depth - 2].combine(stack[depth - 1], n);
  }
}

template <class In, class Out, class Op>
TRIREME_VECTOR_CLONES void reduce(const Job& job, void* out, std::int64_t count) {
  using Value = typename In::Value;
  Block<In, Out, Op> stack[kMaxDepth];
  for (std::int64_t at = 0; at < count; at += kBlock) {
    const int n = static_cast<int>(std::min<std::int64_t>(kBlock, count - at));
    reduce_block<In, Out, Op>(job, at, n, stack);
    if constexpr (std::is_floating_point_v<Value>) {
      if (job.divisor != 0) stack[0].divide(static_cast<Value>(job.divisor), n);
    }
    stack[0].give(static_cast<typename Out::Stored*>(out) + at, n);
  }
}

using Kernel = void (*)(const Job&, void*, std::int64_t);

template <class In, class Out>
Kernel kernel_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
    case ReduceOp::kMean:
      return reduce<In, Out, Sum>;
    case ReduceOp::kMin:
      return reduce<In, Out, Min>;
    case ReduceOp::kMax:
      return reduce<In, Out, Max>;
    case ReduceOp::kProduct:
      return reduce<In, Out, Product>;
  }
  return nullptr;
}

// In and out are the same dtype, or one of them is f32 and the other a narrow float.
Kernel kernel_of(DType in, DType out, ReduceOp op) {
  using F32 = Plain<float>;
  if (in != out) {
    if (in == DType::kBF16) return kernel_of<Bf16, F32>(op);
    if (in == DType::kF16) return kernel_of<F16, F32>(op);
    return out == DType::kBF16 ? kernel_of<F32, Bf16>(op) : kernel_of<F32, F16>(op);
  }
  switch (in) {
    case DType::kF32:
      return kernel_of<F32, F32>(op);
    case DType::kF64:
      return kernel_of<Plain<double>, Plain<double>>(op);
    case DType::kBF16:
      return kernel_of<Bf16, Bf16>(op);
    case DType::kF16:
      return kernel_of<F16, F16>(op);
    case DType::kI8:
      return kernel_of<Plain<std::int8_t>, Plain<std::int8_t>>(op);
    case DType::kU8:
      return kernel_of<Plain<std::uint8_t>, Plain<std::uint8_t>>(op);
    case DType::kI32:
      return kernel_of<Plain<std::int32_t>, Plain<std::int32_t>>(op);
    case DType::kI64:
      return kernel_of<Plain<std::int64_t>, Plain<std::int64_t>>(op);
  }
  return nullptr;
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16 ||
         dtype == DType::kF16;
}

// True when left and right are the two halves of one node of the tree over [0, leaves).
bool are_halves(int leaves, const TreeNode& left, const TreeNode& right) {
  TreeNode node{0, leaves};
  while (node.end - node.begin >= 2) {
    const int middle = tree_split(node.begin, node.end);
    if (node.begin == left.begin && node.end == right.end) {
      return left.end == middle && right.begin == middle;
    }
    node = left.begin < middle ? TreeNode{node.begin, middle} : TreeNode{middle, node.end};
  }
  return false;
}

// Combine counts of few inputs without taking memory.
class Combines {
 public:
  explicit Combines(std::size_t inputs) {
    if (inputs > few_.size()) many_.resize(inputs);
    data_ = inputs > few_.size() ? many_.data() : few_.data();
  }
  std::uint8_t& operator[](std::size_t i) { return data_[i]; }
  std::uint8_t* data() const { return data_; }

 private:
  std::array<std::uint8_t, 64> few_;
  std::vector<std::uint8_t> many_;
  std::uint8_t* data_;
};

// Throws when the nodes do not end as one.
void plan_nodes(const NodeReduction& reduction, std::span<std::uint8_t> combines) {
  std::vector<TreeNode> stack;
  for (std::size_t i = 0; i < reduction.nodes.size(); ++i) {
    stack.push_back(reduction.nodes[i]);
    combines[i] = 0;
    while (stack.size() >= 2 &&
           are_halves(reduction.leaves, stack[stack.size() - 2], stack.back())) {
      stack[stack.size() - 2].end = stack.back().end;
      stack.pop_back();
      ++combines[i];
    }
  }
  TRIREME_ASSERT(stack.size() == 1, "{} nodes of a tree of {} leaves are {} nodes, not one",
                 reduction.nodes.size(), reduction.leaves, stack.size());
}

// The cover of given leaves inside node, from left to right.
void add_cover(const TreeNode& node, std::span<const int> given, std::vector<TreeNode>& cover) {
  const auto first = std::lower_bound(given.begin(), given.end(), node.begin);
  const auto last = std::lower_bound(first, given.end(), node.end);
  if (first == last) return;
  if (last - first == node.end - node.begin) return cover.push_back(node);
  const int middle = tree_split(node.begin, node.end);
  add_cover({node.begin, middle}, given, cover);
  add_cover({middle, node.end}, given, cover);
}

}  // namespace

int tree_split(int begin, int end) {
  return begin + static_cast<int>(std::bit_floor(static_cast<unsigned>(end - begin - 1)));
}

// Leaves are added as a binary counter counts: after leaf i one combine for every bit that carries,
// after the last one all that is left.
void reduce_tree(std::span<const void* const> inputs, void* out, std::int64_t count, DType dtype,
                 ReduceOp op) {
  const std::size_t n = inputs.size();
  TRIREME_ASSERT(n > 0 && n <= (std::size_t{1} << 24), "{} inputs", n);
  const bool mean = op == ReduceOp::kMean;
  TRIREME_ASSERT(!mean || is_float(dtype), "a mean of {}", dtype_name(dtype));
  Combines combines(n);
  for (std::size_t i = 0; i < n; ++i) {
    combines[i] = static_cast<std::uint8_t>(i + 1 < n ? std::countr_one(i) : std::popcount(i));
  }
  const Job job{inputs, combines.data(), mean ? static_cast<int>(n) : 0};
  kernel_of(dtype, dtype, op)(job, out, count);
}

std::vector<TreeNode> tree_cover(int leaves, std::span<const int> given) {
  std::vector<TreeNode> cover;
  add_cover({0, leaves}, given, cover);
  return cover;
}

DType accumulation_dtype(DType dtype) {
  return dtype == DType::kBF16 || dtype == DType::kF16 ? DType::kF32 : dtype;
}

int plan_combines(const NodeReduction& reduction, std::span<std::uint8_t> combines) {
  TRIREME_CHECK_EQ(combines.size(), reduction.nodes.size(), "one input for each node");
  TRIREME_ASSERT(accumulation_dtype(reduction.in_dtype) == accumulation_dtype(reduction.out_dtype),
                 "{} cannot become {}", dtype_name(reduction.in_dtype),
                 dtype_name(reduction.out_dtype));
  const bool mean = reduction.op == ReduceOp::kMean;
  TRIREME_ASSERT(!mean || is_float(reduction.in_dtype), "a mean of {}",
                 dtype_name(reduction.in_dtype));
  plan_nodes(reduction, combines);
  return mean && reduction.finish ? reduction.leaves : 0;
}

void reduce_nodes(const NodeReduction& reduction, std::span<const void* const> inputs, void* out,
                  std::int64_t count) {
  Combines combines(inputs.size());
  const int divisor = plan_combines(reduction, {combines.data(), inputs.size()});
  const Job job{inputs, combines.data(), divisor};
  kernel_of(reduction.in_dtype, reduction.out_dtype, reduction.op)(job, out, count);
}

}  // namespace trireme
