// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/split_backward.h"

#include <ATen/TensorOperators.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/types.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/operations_of_training.h"
#include "tests/support/post_hook.h"
#include "trireme/base/error.h"
#include "trireme/ops/checkpoint.h"
#include "trireme/ops/parameter_gradient.h"

namespace trireme {
namespace {

using ops::DirectGradients;
using ops::SplitBackward;
using testing::leaf;
using testing::normal;
using testing::Operation;
using testing::Tensors;
namespace nn = torch::nn;

// A graph to be: leaves and what is computed from them.
struct Scene {
  Tensors inputs, parameters;
  std::function<Tensors()> run;
};
// Makes the same one each time.
using SceneOf = std::function<Scene(at::ScalarType dtype)>;

// Cotangents of outputs, and their edges.
struct Roots {
  explicit Roots(const Tensors& outputs) {
    for (const at::Tensor& output : outputs) {
      edges.push_back(torch::autograd::impl::gradient_edge(output));
      gradients.push_back(testing::cotangent(output, edges.size(), testing::Layout::kPlain));
    }
  }
  SplitBackward::Edges edges;
  Tensors gradients;
};

Tensors gradients_of(const Tensors& leaves) {
  Tensors gradients;
  for (const at::Tensor& each : leaves) {
    gradients.push_back(each.grad().defined() ? each.grad().clone() : at::Tensor());
  }
  return gradients;
}

void expect_same(const Tensors& actual, const Tensors& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const at::Tensor &a = actual[i], &b = expected[i];
    const bool same = a.defined() == b.defined() &&
                      (!a.defined() || (a.scalar_type() == b.scalar_type() && a.equal(b)));
    EXPECT_TRUE(same) << what << " " << i;
  }
}

// Gradients of parameters as autograd accumulates them, or in f32, with an earlier pass's values.
enum class Landing { kAccumulated, kDirect };

std::unique_ptr<DirectGradients> guard(Landing landing) {
  return landing == Landing::kDirect ? std::make_unique<DirectGradients>() : nullptr;
}

Scene made(const SceneOf& scene_of, at::ScalarType dtype, Landing landing) {
  Scene scene = scene_of(dtype);
  if (landing == Landing::kAccumulated) return scene;
  for (std::size_t i = 0; i < scene.parameters.size(); ++i) {
    at::Tensor& each = scene.parameters[i];
    each.mutable_grad() = normal(each.sizes(), 700 + i).to(at::kFloat);
  }
  return scene;
}

void expect_split_equals_plain(const SceneOf& scene_of, at::ScalarType dtype,
                               Landing landing = Landing::kAccumulated) {
  SCOPED_TRACE(std::string(c10::toString(dtype)) + (landing == Landing::kDirect ? ", direct" : ""));
  const Scene plain = made(scene_of, dtype, landing), split = made(scene_of, dtype, landing);
  {
    const auto in_place = guard(landing);
    const Tensors outputs = plain.run();
    torch::autograd::backward(outputs, Roots(outputs).gradients);
  }
  const Tensors before = gradients_of(split.parameters);
  SplitBackward pass;
  const Roots roots(split.run());
  {
    const auto in_place = guard(landing);
    expect_same(pass.backward_inputs(roots.edges, roots.gradients, split.inputs),
                gradients_of(plain.inputs), "input");
  }
  expect_same(gradients_of(split.inputs), Tensors(split.inputs.size()), "untouched input");
  expect_same(gradients_of(split.parameters), before, "untouched parameter");
  EXPECT_GT(pass.kept_bytes(), 0);
  {
    const auto in_place = guard(landing);
    pass.backward_weights();
  }
  expect_same(gradients_of(split.parameters), gradients_of(plain.parameters), "parameter");
  EXPECT_EQ(pass.kept_bytes(), 0);
}

TEST(SplitBackward, HasTheBitsOfThePlainPassInEveryOperation) {
  for (const Operation& operation : testing::operations_of_training()) {
    if (operation.num_activations == operation.inputs.size()) continue;  // no parameters
    SCOPED_TRACE(operation.name);
    const SceneOf scene_of = [&](at::ScalarType dtype) {
      const Tensors leaves = testing::leaves_of(operation.inputs, dtype);
      const auto end = leaves.begin() + static_cast<std::ptrdiff_t>(operation.num_activations);
      return Scene{{leaves.begin(), end}, {end, leaves.end()}, [&operation, leaves] {
                     return operation.run(leaves);
                   }};
    };
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      expect_split_equals_plain(scene_of, dtype);
    }
    if (operation.name.rfind("loss", 0) == 0) continue;  // direct: added in the first half
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      expect_split_equals_plain(scene_of, dtype, Landing::kDirect);
    }
  }
}

// A module with values for its parameters. x: its input, a leaf if it has a gradient at all.
SceneOf scene_of(const std::function<nn::Sequential()>& make, const at::Tensor& x) {
  return [=](at::ScalarType dtype) {
    nn::Sequential module = make();
    module->to(dtype);
    Scene scene;
    for (at::Tensor& each : module->parameters()) {
      const at::NoGradGuard no_grad;
      each.copy_(normal(each.sizes(), 30 + scene.parameters.size()) / 3);
      scene.parameters.push_back(each);
    }
    at::Tensor in = x;
    if (x.is_floating_point()) scene.inputs.push_back(in = leaf(x, dtype));
    scene.run = [module, in]() mutable { return Tensors{module->forward(in)}; };
    return scene;
  };
}

nn::Sequential layers() {
  return nn::Sequential(nn::Linear(7, 11), nn::LayerNorm(nn::LayerNormOptions({11})), nn::GELU(),
                        nn::Linear(nn::LinearOptions(11, 5).bias(false)), nn::Tanh());
}

TEST(SplitBackward, OfLibTorchsModulesHasTheBitsOfThePlainPass) {
  const auto convolutions = [] {
    return nn::Sequential(nn::Conv2d(nn::Conv2dOptions(3, 5, 3)), nn::GELU(),
                          nn::Conv2d(nn::Conv2dOptions(5, 2, 3).bias(false)));
  };
  const auto embedded = [] {
    return nn::Sequential(nn::Embedding(13, 7), nn::Linear(7, 5), nn::GELU(), nn::Linear(5, 3));
  };
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    expect_split_equals_plain(scene_of(layers, normal({4, 7}, 1)), dtype);
    expect_split_equals_plain(scene_of(layers, normal({2, 4, 7}, 1)), dtype);
    expect_split_equals_plain(scene_of(convolutions, normal({2, 3, 9, 8}, 1)), dtype);
    // No input needs a gradient: all is computed in the first half, and kept.
    expect_split_equals_plain(scene_of(embedded, testing::indices_below({3, 4}, 13)), dtype);
    expect_split_equals_plain(scene_of(layers, normal({4, 7}, 1)), dtype, Landing::kDirect);
  }
}

// Two matrices and an embedding with a part of a table, of ours and of LibTorch; a side that leads
// to no input; a computed weight; a tied one.
SceneOf mixed_scene() {
  return [](at::ScalarType dtype) {
    Scene scene;
    scene.inputs = testing::leaves_of({normal({4, 6}, 1), normal({4, 6}, 2)}, dtype);
    scene.parameters =
        testing::leaves_of({normal({6, 6}, 3), normal({6, 6}, 4), normal({9, 6}, 5),
                            normal({13, 6}, 6), normal({6}, 7), normal({5, 6}, 8), normal({6}, 9)},
                           dtype);
    scene.run = [in = scene.inputs, p = scene.parameters] {
      const auto tokens = testing::indices_below({4}, 13);
      const auto rows = ops::embedding(p[3], tokens, p[2].narrow(0, 3, 4));
      auto x = ops::linear(in[0], p[0], p[4]) + torch::matmul(in[1], p[1]);
      x = ops::layer_norm(x * 2 + rows, p[6], p[4], 1e-3);
      x = ops::linear(x, p[1] * 3, {}) + p[2].narrow(0, 1, 4);
      return Tensors{ops::linear(x, p[5], {}), torch::tanh(p[5]), rows.square()};
    };
    return scene;
  };
}

TEST(SplitBackward, OfNodesOfBothKindsHasTheBitsOfThePlainPass) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    expect_split_equals_plain(mixed_scene(), dtype);
  }
  expect_split_equals_plain(mixed_scene(), at::kFloat, Landing::kDirect);
}

// Segments within segments, with parameters of ours and of LibTorch, with and without an input.
TEST(SplitBackward, OfCheckpointedSegmentsIsSplitInside) {
  for (const bool with_input : {true, false}) {
    const SceneOf scene_of = [&](at::ScalarType dtype) {
      Scene scene;
      const auto x = normal({4, 6}, 1);
      const at::Tensor in = with_input ? leaf(x, dtype) : x.to(dtype);
      if (with_input) scene.inputs.push_back(in);
      scene.parameters = testing::leaves_of(
          {normal({6, 6}, 3), normal({6, 6}, 4), normal({6, 6}, 5), normal({6}, 6)}, dtype);
      scene.run = [in, p = scene.parameters] {
        const auto inner = [p](const Tensors& t) {
          return Tensors{torch::tanh(torch::matmul(t[0], p[1]) + ops::linear(t[0], p[2], {}))};
        };
        const auto outer = [p, inner](const Tensors& t) {
          return Tensors{ops::checkpoint(inner, {ops::linear(t[0], p[0], p[3])})[0] * t[0]};
        };
        return ops::checkpoint(outer, {in});
      };
      return scene;
    };
    expect_split_equals_plain(scene_of, at::kFloat);
    expect_split_equals_plain(scene_of, at::kBFloat16);
    expect_split_equals_plain(scene_of, at::kDouble);
    expect_split_equals_plain(scene_of, at::kFloat, Landing::kDirect);
  }
}

// How often an operation of LibTorch is called while this lives.
class CallCount {
 public:
  explicit CallCount(std::string operation) {
    name_ = std::move(operation);
    calls_ = 0;
    handle_ =
        at::addThreadLocalCallback(at::RecordFunctionCallback([](const at::RecordFunction& f) {
                                     calls_ += name_ == f.name() ? 1 : 0;
                                     return std::unique_ptr<at::ObserverContext>();
                                   }).scopes({at::RecordScope::FUNCTION}));
  }
  ~CallCount() { at::removeCallback(handle_); }
  CallCount(const CallCount&) = delete;
  CallCount& operator=(const CallCount&) = delete;
  int take() { return std::exchange(calls_, 0); }

 private:
  static inline std::string name_;
  static inline int calls_;
  at::CallbackHandle handle_;
};

TEST(SplitBackward, TheFirstHalfMultipliesForInputsOnly) {
  const Scene scene = scene_of(layers, normal({4, 7}, 1))(at::kFloat);
  const Roots roots(scene.run());
  SplitBackward pass;
  CallCount products("aten::mm");
  pass.backward_inputs(roots.edges, roots.gradients, scene.inputs);
  EXPECT_EQ(products.take(), 2);
  pass.backward_weights();
  EXPECT_EQ(products.take(), 2);
}

// A custom function of a user's, which need not bear being run twice.
struct Counted : torch::autograd::Function<Counted> {
  static at::Tensor forward(torch::autograd::AutogradContext* /*context*/, const at::Tensor& x,
                            const at::Tensor& weight, std::int64_t /*id*/) {
    return x * 2 + weight * 3;
  }
  static Tensors backward(torch::autograd::AutogradContext* /*context*/, const Tensors& gradients) {
    ++runs;
    return {gradients[0] * 2, gradients[0] * 3, at::Tensor()};
  }
  static inline int runs = 0;
};

TEST(SplitBackward, CustomFunctionsRunOnceAndWhatTheyHandOnIsKept) {
  const auto scene_of = [](at::ScalarType dtype) {
    Scene scene{testing::leaves_of({normal({4, 6}, 1)}, dtype),
                testing::leaves_of({normal({4, 6}, 2), normal({6}, 3)}, dtype),
                {}};
    scene.run = [in = scene.inputs, p = scene.parameters] {
      return Tensors{Counted::apply(Counted::apply(in[0], p[0], 1), p[1].exp().expand({4, 6}), 2)};
    };
    return scene;
  };
  Counted::runs = 0;
  expect_split_equals_plain(scene_of, at::kFloat);
  EXPECT_EQ(Counted::runs, 2 + 2) << "plain and split";
}

// Each of another size; finished in an order that is not theirs.
TEST(SplitBackward, OfSeveralMicroBatchesAreFinishedInAnyOrder) {
  const Tensors values{normal({6, 6}, 1), normal({5, 6}, 2), normal({6}, 3)};
  const Tensors plain = testing::leaves_of(values, at::kFloat),
                split = testing::leaves_of(values, at::kFloat);
  const auto model = [](const at::Tensor& x, const Tensors& p) {
    return Tensors{ops::linear(torch::tanh(torch::matmul(x, p[0])) * p[2], p[1], {})};
  };
  const auto input = [](std::int64_t i) {
    return leaf(normal({3 + i, 6}, 90 + static_cast<std::uint64_t>(i)), at::kFloat);
  };
  std::vector<std::unique_ptr<SplitBackward>> passes;
  for (std::int64_t i = 0; i < 3; ++i) {
    const at::Tensor x = input(i);
    const Roots roots(model(x, split));
    passes.push_back(std::make_unique<SplitBackward>());
    passes.back()->backward_inputs(roots.edges, roots.gradients, {x});
  }
  expect_same(gradients_of(split), Tensors(split.size()), "untouched");
  for (const std::int64_t i : {1, 2, 0}) {
    const Tensors outputs = model(input(i), plain);
    torch::autograd::backward(outputs, Roots(outputs).gradients);
    passes[static_cast<std::size_t>(i)]->backward_weights();
    expect_same(gradients_of(split), gradients_of(plain), "parameter");
  }
}

// Inputs that are computed: what lies behind them belongs to the second half. Outputs that no input
// leads to, and an output that is an input.
TEST(SplitBackward, InputsNeedNotBeLeavesNorReached) {
  const auto values = normal({4, 6}, 1), matrix = normal({6, 6}, 2);
  const auto plain_x = leaf(values, at::kFloat), x = leaf(values, at::kFloat),
             plain_w = leaf(matrix, at::kFloat), w = leaf(matrix, at::kFloat),
             other = leaf(values, at::kFloat);
  const auto middle_of = [](const at::Tensor& in, const at::Tensor& weight) {
    return torch::tanh(torch::matmul(in, weight));
  };
  const auto end_of = [](const at::Tensor& middle) { return (middle * middle).sum(); };
  const auto plain_middle = middle_of(plain_x, plain_w);
  plain_middle.retain_grad();
  torch::autograd::backward({end_of(plain_middle)});

  const auto middle = middle_of(x, w), end = end_of(middle);
  SplitBackward pass;
  const auto results = pass.backward_inputs({torch::autograd::impl::gradient_edge(end)},
                                            {torch::ones({})}, {middle, other});
  EXPECT_TRUE(results.at(0).equal(plain_middle.grad()));
  EXPECT_FALSE(results.at(1).defined());
  EXPECT_FALSE(w.grad().defined());
  pass.backward_weights();
  EXPECT_TRUE(w.grad().equal(plain_w.grad()));
  EXPECT_TRUE(x.grad().equal(plain_x.grad()));
  EXPECT_FALSE(other.grad().defined());

  SplitBackward nothing;
  const auto own = nothing.backward_inputs({torch::autograd::impl::gradient_edge(other)},
                                           {values.to(at::kFloat)}, {other});
  nothing.backward_weights();
  EXPECT_TRUE(own.at(0).equal(values.to(at::kFloat)));
  EXPECT_FALSE(other.grad().defined());
}

TEST(SplitBackward, HooksOfTheAccumulationRunOnceInTheSecondHalf) {
  for (const Landing landing : {Landing::kAccumulated, Landing::kDirect}) {
    const Scene scene = made(mixed_scene(), at::kFloat, landing);
    std::vector<int> runs(scene.parameters.size());
    Tensors seen(scene.parameters.size());
    std::vector<decltype(torch::autograd::Edge::function)> accumulations;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const at::Tensor parameter = scene.parameters[i];
      accumulations.push_back(torch::autograd::impl::grad_accumulator(parameter));
      accumulations.back()->add_post_hook(std::make_unique<testing::PostHook>([&, i, parameter] {
        ++runs[i];
        seen[i] = parameter.grad().clone();
      }));
    }
    int before = 0;
    scene.parameters[1].register_hook([&](const at::Tensor& gradient) {
      EXPECT_TRUE(gradient.defined());
      ++before;
    });
    const auto in_place = guard(landing);
    SplitBackward pass;
    const Roots roots(scene.run());
    pass.backward_inputs(roots.edges, roots.gradients, scene.inputs);
    EXPECT_EQ(before, 0);
    EXPECT_EQ(runs, std::vector<int>(runs.size(), 0));
    pass.backward_weights();
    EXPECT_EQ(before, 1);
    EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
    expect_same(gradients_of(scene.parameters), seen, "seen by the hook");
  }
}

// Calls something in its backward pass.
struct Probe : torch::autograd::Function<Probe> {
  static at::Tensor forward(torch::autograd::AutogradContext* /*context*/, const at::Tensor& x) {
    return x.clone();
  }
  static Tensors backward(torch::autograd::AutogradContext* /*context*/, const Tensors& gradients) {
    call();
    return gradients;
  }
  static inline std::function<void()> call;
};

// What only the first half needs is freed while it runs, the rest in the second.
TEST(SplitBackward, FreesWhatNobodyNeedsAnyMore) {
  const auto x = leaf(normal({4, 7}, 1), at::kFloat), w = leaf(normal({7, 5}, 2), at::kFloat),
             v = leaf(normal({3, 5}, 3), at::kFloat);
  const auto weak = [](const at::Tensor& tensor) {
    return c10::weak_intrusive_ptr<c10::StorageImpl>(
        c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(
            tensor.storage().unsafeGetStorageImpl()));
  };
  SplitBackward pass;
  at::Tensor doubled = Probe::apply(x) * 2, product = torch::matmul(doubled, w),
             squared = product.square();
  const auto in_product = weak(doubled), in_square = weak(product), in_linear = weak(squared);
  at::Tensor y = ops::linear(squared, v, {});
  const Roots roots({y});
  doubled.reset(), product.reset(), squared.reset(), y.reset();
  Probe::call = [&] { EXPECT_TRUE(in_square.expired()); };
  pass.backward_inputs(roots.edges, roots.gradients, {x});
  EXPECT_FALSE(in_product.expired());
  EXPECT_TRUE(in_square.expired());
  EXPECT_FALSE(in_linear.expired());
  pass.backward_weights();
  EXPECT_TRUE(in_product.expired());
  EXPECT_TRUE(in_linear.expired());
}

TEST(SplitBackward, ACallTooManyIsAnError) {
  const Scene scene = mixed_scene()(at::kFloat);
  const Roots roots(scene.run());
  SplitBackward pass;
  EXPECT_THROW(pass.backward_weights(), Error);
  EXPECT_THROW(pass.backward_inputs(roots.edges, {}, scene.inputs), Error);
  pass.backward_inputs(roots.edges, roots.gradients, scene.inputs);
  EXPECT_THROW(pass.backward_inputs(roots.edges, roots.gradients, scene.inputs), Error);
  pass.backward_weights();
  EXPECT_THROW(pass.backward_weights(), Error);
}

struct Failing : torch::autograd::Function<Failing> {
  static at::Tensor forward(torch::autograd::AutogradContext* /*context*/, const at::Tensor& x) {
    return x * 2;
  }
  static Tensors backward(torch::autograd::AutogradContext* /*context*/, const Tensors&) {
    throw std::runtime_error("no gradient here");
  }
};

TEST(SplitBackward, AnErrorOfTheGraphLeavesNothing) {
  const auto x = leaf(normal({4, 6}, 1), at::kFloat), w = leaf(normal({6, 6}, 2), at::kFloat);
  const Roots roots({ops::linear(Failing::apply(x), w, {})});
  SplitBackward pass;
  EXPECT_THROW(pass.backward_inputs(roots.edges, roots.gradients, {x}), std::runtime_error);
  EXPECT_EQ(pass.kept_bytes(), 0);
  EXPECT_THROW(pass.backward_weights(), Error);
  EXPECT_FALSE(w.grad().defined());

  SplitBackward second;
  const Roots others(
      {ops::checkpoint(
           [w](const Tensors& t) { return Tensors{ops::linear(ops::linear(t[0], w, {}), w, {})}; },
           {x})[0] +
       ops::linear(x, w, {})});
  second.backward_inputs(others.edges, others.gradients, {x});
  const DirectGradients no_home(
      {.home = [](const at::Tensor&) { throw std::runtime_error("no home"); }});
  EXPECT_THROW(second.backward_weights(), std::runtime_error);
  EXPECT_EQ(second.kept_bytes(), 0);
}

}  // namespace
}  // namespace trireme
