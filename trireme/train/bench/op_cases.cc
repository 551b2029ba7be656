// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/op_cases.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <utility>

#include "trireme/ops/attention.h"
#include "trireme/ops/embedding.h"
#include "trireme/ops/linear.h"
#include "trireme/ops/loss.h"
#include "trireme/ops/norm.h"
#include "trireme/ops/rotary.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/optim/optimizer.h"
#include "trireme/train/bench/step_bench.h"

namespace trireme {
namespace {

constexpr std::int64_t kSequences = 4, kTokens = 256, kWidth = 768, kHeads = 12, kHeadWidth = 64;
constexpr std::int64_t kMlpWidth = 3072, kVocabulary = 50257;
constexpr std::int64_t kRows = kSequences * kTokens;
constexpr std::int64_t kParameters = std::int64_t{1} << 25;  // of the optimizer's case

using Tensors = std::vector<at::Tensor>;

// What an input is.
struct Input {
  std::vector<std::int64_t> shape;
  std::int64_t indices_below = 0;  // 0: values with a gradient
};

double elements(const Input& input) {
  double count = 1;
  for (const std::int64_t size : input.shape) count *= static_cast<double>(size);
  return count;
}

at::Tensor make_input(const Input& input, at::ScalarType dtype) {
  if (input.indices_below > 0) {
    return at::empty(input.shape, at::kLong).random_(0, input.indices_below);
  }
  return at::empty(input.shape, at::kFloat).normal_().to(dtype).set_requires_grad(true);
}

// Makes the lines of the table for one dtype.
class Table {
 public:
  explicit Table(at::ScalarType dtype) : dtype_(dtype) {}

  // Elements that forward and backward move, in the table's dtype.
  struct Moved {
    double forward;
    double backward;
  };

  void add(const std::string& op, const std::vector<Input>& inputs,
           const std::function<at::Tensor(const Tensors&)>& run, Moved moved,
           std::vector<MatrixProduct> products = {}) {
    std::vector<std::string> shapes;  // equal ones next to each other once
    for (const Input& input : inputs) {
      const std::string shape = fmt::format("[{}]", fmt::join(input.shape, ", "));
      if (shapes.empty() || shapes.back() != shape) shapes.push_back(shape);
    }
    const auto make = [dtype = dtype_, inputs, run] {
      Tensors all, with_gradient;
      for (const Input& input : inputs) {
        all.push_back(make_input(input, dtype));
        if (all.back().requires_grad()) with_gradient.push_back(all.back());
      }
      return OpRun{[all, run] { return run(all); }, with_gradient};
    };
    const auto element_bytes = static_cast<double>(c10::elementSize(dtype_));
    cases_.push_back({op, fmt::format("{}", fmt::join(shapes, " ")), make, std::move(products),
                      moved.forward * element_bytes, moved.backward * element_bytes});
  }

  void add_linear(std::int64_t in, std::int64_t out) {
    const auto tensors = static_cast<double>(kRows * in + in * out + kRows * out);
    add(
        "linear", {{{kRows, in}}, {{out, in}}},
        [](const Tensors& t) { return ops::linear(t[0], t[1], {}); }, {tensors, 2 * tensors},
        linear_products(kRows, in, out));
  }

  void add_attention(std::int64_t sequences, std::int64_t tokens) {
    const Input heads{{sequences, tokens, kHeads, kHeadWidth}};
    add(
        "attention", {heads, heads, heads},
        [](const Tensors& t) {
          return ops::causal_attention(t[0], t[1].transpose(1, 2), t[2].transpose(1, 2));
        },
        {4 * elements(heads), 8 * elements(heads)},
        attention_products({sequences, tokens, kHeads, kHeads, kHeadWidth}));
  }

  // `first` matrices [F, C], then one [C, F].
  void add_mlp(const std::string& op, std::int64_t first,
               std::function<at::Tensor(const Tensors&)> run) {
    std::vector<Input> inputs = {{{kRows, kWidth}}};
    std::vector<MatrixProduct> products;
    const auto append = [&](std::int64_t in, std::int64_t out) {
      inputs.push_back({{out, in}});
      for (const MatrixProduct& product : linear_products(kRows, in, out)) {
        products.push_back(product);
      }
    };
    for (std::int64_t i = 0; i < first; ++i) append(kWidth, kMlpWidth);
    append(kMlpWidth, kWidth);
    const auto tensors =
        static_cast<double>(2 * kRows * kWidth + (first + 1) * kMlpWidth * (kRows + kWidth));
    add(op, std::move(inputs), std::move(run), {tensors, 2 * tensors}, std::move(products));
  }

  // Those without gradients, on flat f32 buffers.
  void add_flat(const std::string& op, double bytes, std::function<OpRun()> make) {
    cases_.push_back({op,
                      fmt::format("[{}]", kParameters),
                      std::move(make),
                      {},
                      bytes * static_cast<double>(kParameters),
                      0});
  }

  std::vector<OpCase> take() { return std::move(cases_); }

 private:
  at::ScalarType dtype_;
  std::vector<OpCase> cases_;
};

OpRun make_adamw(at::ScalarType dtype) {
  optim::OptimizerSpace space;
  space.parameters = {{{"weight", {kParameters}, 0, kParameters}, /*decays=*/true}};
  space.segments = {{0, kParameters}};
  const std::shared_ptr<optim::Optimizer> adamw = optim::make_optimizer({}, space);
  const at::Tensor weights = at::empty({kParameters}, at::kFloat).normal_();
  const at::Tensor gradients = at::empty({kParameters}, at::kFloat).normal_();
  const at::Tensor copy =
      dtype == at::kBFloat16 ? at::zeros({kParameters}, at::kBFloat16) : at::Tensor();
  return {[=] {
            const optim::PieceUpdate all{weights, gradients, copy};
            adamw->step({.pieces = {&all, 1}, .learning_rate = 1e-4});
            return at::Tensor();
          },
          {}};
}

OpRun make_global_norm() {
  const at::Tensor gradients = at::empty({kParameters}, at::kFloat).normal_();
  return {[=] {
            optim::global_norm(gradients);
            return at::Tensor();
          },
          {}};
}

// The operations of a transformer, and what they are made of where one pass does what others do in
// several: by LibTorch's own operations between our products. The difference is what the fusion
// saves.
void add_matrix_operations(Table& table) {
  const double hidden = kRows * kWidth, matrix = kVocabulary * kWidth;
  table.add_linear(kWidth, kWidth);
  table.add_linear(kWidth, kMlpWidth);
  table.add_linear(kMlpWidth, kWidth);
  table.add_linear(kWidth, kVocabulary);
  table.add_attention(kSequences, 256);
  table.add_attention(2, 1024);
  table.add_attention(1, 2048);
  table.add_mlp("gelu_mlp", 1,
                [](const Tensors& t) { return ops::gelu_mlp(t[0], t[1], {}, t[2], {}); });
  table.add_mlp("gelu_mlp_unfused", 1, [](const Tensors& t) {
    return ops::linear(at::gelu(ops::linear(t[0], t[1], {}), "tanh"), t[2], {});
  });
  table.add_mlp("swiglu_mlp", 2,
                [](const Tensors& t) { return ops::swiglu_mlp(t[0], t[1], t[2], t[3]); });
  table.add_mlp("swiglu_mlp_unfused", 2, [](const Tensors& t) {
    return ops::linear(at::silu(ops::linear(t[0], t[1], {})) * ops::linear(t[0], t[2], {}), t[3],
                       {});
  });
  const auto add_loss = [&](const char* op, auto run) {
    table.add(op, {{{kRows, kWidth}}, {{kVocabulary, kWidth}}, {{kRows}, kVocabulary}}, run,
              {hidden + matrix, 3 * (hidden + matrix)},
              linear_products(kRows, kWidth, kVocabulary));
  };
  add_loss("linear_cross_entropy",
           [](const Tensors& t) { return ops::linear_cross_entropy(t[0], t[1], t[2]); });
  add_loss("linear_cross_entropy_unfused", [](const Tensors& t) {
    return at::cross_entropy_loss(ops::linear(t[0], t[1], {}).to(at::kFloat), t[2]);
  });
}

void add_memory_operations(Table& table, at::ScalarType dtype) {
  const double hidden = kRows * kWidth, matrix = kVocabulary * kWidth;
  const Input rows{{kRows, kWidth}}, parameter{{kWidth}};
  table.add("layer_norm", {rows, parameter, parameter},
            [](const Tensors& t) { return ops::layer_norm(t[0], t[1], t[2], 1e-5); },
            {2 * hidden, 3 * hidden});
  table.add("rms_norm", {rows, parameter},
            [](const Tensors& t) { return ops::rms_norm(t[0], t[1], 1e-5); },
            {2 * hidden, 3 * hidden});
  table.add(
      "add_layer_norm", {rows, rows, parameter, parameter},
      [](const Tensors& t) { return ops::add_layer_norm(t[0], t[1], t[2], t[3], 1e-5).normed; },
      {4 * hidden, 3 * hidden});
  table.add(
      "add_layer_norm_unfused", {rows, rows, parameter, parameter},
      [](const Tensors& t) { return at::layer_norm(t[0] + t[1], t[2].sizes(), t[2], t[3], 1e-5); },
      {4 * hidden, 3 * hidden});
  table.add("embedding", {{{kVocabulary, kWidth}}, {{kRows}, kVocabulary}},
            [](const Tensors& t) { return ops::embedding(t[0], t[1]); },
            {2 * hidden, hidden + matrix});
  table.add("rotary", {{{kSequences, kTokens, kHeads, kHeadWidth}}},
            [angles = ops::rotary_table(0, kTokens, kHeadWidth, 10000.0, at::TensorOptions(dtype))](
                const Tensors& t) { return ops::rotate(t[0], angles); },
            {2 * hidden, 2 * hidden});
  table.add_flat("adamw", optimizer_bytes_per_parameter(dtype),
                 [dtype] { return make_adamw(dtype); });
  table.add_flat("global_norm", sizeof(float), make_global_norm);
}

}  // namespace

std::vector<OpCase> op_cases(at::ScalarType dtype) {
  Table table(dtype);
  add_matrix_operations(table);
  add_memory_operations(table, dtype);
  return table.take();
}

}  // namespace trireme
