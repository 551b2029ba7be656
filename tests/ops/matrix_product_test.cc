// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/matrix_product.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/support/compute_threads.h"
#include "tests/support/operation.h"
#include "tests/support/vector_units.h"
#include "trireme/base/error.h"
#include "trireme/ops/kernels/matrix_kernels.h"
#include "trireme/ops/tensor_view.h"

namespace trireme {
namespace {

using ops::Epilogue;
using ops::MatrixView;
using testing::normal;
using Kind = Epilogue::Kind;

struct Sizes {
  std::int64_t M, K, N;
  std::string text() const { return fmt::format("{} x {} x {}", M, K, N); }
};

// One, a row, and every dim across tiles (12 x 32), depths (256) and tasks.
const std::vector<Sizes> kSizes = {{1, 1, 1},     {1, 0, 5},     {7, 0, 3},
                                   {1, 513, 33},  {3, 17, 95},   {5, 511, 31},
                                   {13, 512, 65}, {25, 70, 203}, {37, 1031, 131}};

// Values in memory by rows or by columns.
at::Tensor matrix(std::int64_t rows, std::int64_t columns, std::uint64_t stream,
                  at::ScalarType dtype, bool by_columns = false) {
  const at::Tensor values = normal({rows, columns}, stream).to(dtype);
  return by_columns ? values.t().contiguous().t() : values;
}

// Element (m, n) as the header defines it.
float chain(const at::Tensor& left, const at::Tensor& right, std::int64_t m, std::int64_t n) {
  const auto a = left.accessor<float, 2>(), b = right.accessor<float, 2>();
  float sum = 0;
  for (std::int64_t k = 0; k < left.size(1); ++k) sum = std::fma(a[m][k], b[k][n], sum);
  return sum;
}

at::Tensor chains(const at::Tensor& left, const at::Tensor& right) {
  const at::Tensor a = left.to(at::kFloat), b = right.to(at::kFloat);
  at::Tensor product = torch::empty({left.size(0), right.size(1)}, at::kFloat);
  auto out = product.accessor<float, 2>();
  for (std::int64_t m = 0; m < product.size(0); ++m) {
    for (std::int64_t n = 0; n < product.size(1); ++n) out[m][n] = chain(a, b, m, n);
  }
  return product;
}

// `out` and `second_out` of an epilogue, [M, N] cut from rows that are longer; what lies between
// must stay as it was.
struct Result {
  at::Tensor out;
  at::Tensor second_out;
};

constexpr double kUntouched = -77;  // exact in bf16
constexpr std::int64_t kGap = 5;    // elements between rows

at::Tensor padded(const at::Tensor& values) {
  const at::Tensor whole =
      torch::full({values.size(0), values.size(1) + kGap}, kUntouched, values.options());
  whole.narrow(1, 0, values.size(1)).copy_(values);
  return whole;
}

Result run(const at::Tensor& left, const at::Tensor& right, Kind kind, const at::Tensor& first_in,
           const at::Tensor& second_in, const at::Tensor& bias, const at::Tensor& out_before) {
  const at::Tensor out = padded(out_before), second_out = padded(out_before);
  const at::Tensor first = padded(first_in), second = padded(second_in);
  ops::matrix_product(ops::view_of(left), ops::view_of(right),
                      {.kind = kind,
                       .out = out.data_ptr(),
                       .element = ops::element_of(out),
                       .stride = out.stride(0),
                       .second_out = second_out.data_ptr(),
                       .first_in = first.data_ptr(),
                       .second_in = second.data_ptr(),
                       .bias = bias.defined() ? bias.data_ptr() : nullptr});
  const std::int64_t N = right.size(1);
  for (const at::Tensor& whole : {out, second_out}) {
    EXPECT_TRUE(whole.narrow(1, N, kGap).eq(kUntouched).all().item<bool>()) << "between the rows";
  }
  return {out.narrow(1, 0, N), second_out.narrow(1, 0, N)};
}

at::Tensor stored(const at::Tensor& left, const at::Tensor& right,
                  at::ScalarType dtype = at::kFloat) {
  const at::Tensor blank = torch::zeros({left.size(0), right.size(1)}, dtype);
  return run(left, right, Kind::kStore, blank, blank, {}, blank).out;
}

// Whether the product is one chain for each element: not of thin products, nor of bf16 where the
// processor's dot product adds pairs.
bool is_chain(const at::Tensor& left, bool right_by_columns) {
  return !(left.size(0) <= ops::kThinRows && right_by_columns) &&
         !(left.scalar_type() == at::kBFloat16 && ops::bf16_dot_in_use());
}

// Other orders of the same sum: K roundings of sums no larger than K.
void expect_sums(const at::Tensor& product, const at::Tensor& expected, std::int64_t K,
                 const std::string& what) {
  const double bound =
      static_cast<double>(K * K) * 0x1p-24 +
      (product.scalar_type() == at::kBFloat16 ? 0x1p-8 * static_cast<double>(K) : 0);
  EXPECT_LE((product.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>(),
            bound + 1e-30)
      << what;
}

void expect_chains() {
  for (const Sizes& s : kSizes) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor expected = chains(matrix(s.M, s.K, 1, dtype), matrix(s.K, s.N, 2, dtype));
      for (const bool left_by_columns : {false, true}) {
        for (const bool right_by_columns : {false, true}) {
          const at::Tensor left = matrix(s.M, s.K, 1, dtype, left_by_columns),
                           right = matrix(s.K, s.N, 2, dtype, right_by_columns);
          if (!is_chain(left, right_by_columns)) {
            expect_sums(stored(left, right), expected, s.K, s.text());
            expect_sums(stored(left, right, at::kBFloat16), expected, s.K, s.text());
            continue;
          }
          EXPECT_TRUE(stored(left, right).equal(expected))
              << s.text() << ", " << dtype << ", by columns: " << left_by_columns
              << right_by_columns;
          EXPECT_TRUE(stored(left, right, at::kBFloat16).equal(expected.to(at::kBFloat16)))
              << s.text() << ", " << dtype << " to bf16";
        }
      }
    }
  }
}

TEST(MatrixProduct, EveryElementIsOneChainOfFusedMultiplyAdds) {
  for (const bool dot_product : {false, true}) {
    const testing::Bf16DotProducts products(dot_product);
    expect_chains();
  }
}

// f32 times bf16, as in the gradient of the loss.
TEST(MatrixProduct, TakesTwoDtypes) {
  const at::Tensor left = matrix(29, 530, 1, at::kFloat), right = matrix(530, 70, 2, at::kBFloat16);
  EXPECT_TRUE(stored(left, right).equal(chains(left, right)));
  EXPECT_TRUE(stored(right.t(), left.t()).equal(chains(right.t(), left.t())));
}

// Partial sums of more than one task, and more rows than are packed at a time.
TEST(MatrixProduct, LargeProductsAreTheSameChains) {
  for (const Sizes& s : {Sizes{530, 1027, 520}, Sizes{2011, 33, 67}, Sizes{31, 2050, 1500}}) {
    const at::Tensor left = matrix(s.M, s.K, 1, at::kFloat, true),
                     right = matrix(s.K, s.N, 2, at::kFloat);
    const at::Tensor product = stored(left, right);
    constexpr std::int64_t kStep = 211;  // a prime: every row and column is met
    for (std::int64_t i = 0; i < s.M * s.N; i += kStep) {
      ASSERT_EQ(product[i / s.N][i % s.N].item<float>(), chain(left, right, i / s.N, i % s.N))
          << s.text() << " at " << i / s.N << ", " << i % s.N;
    }
  }
}

TEST(MatrixProduct, ARowAloneEqualsTheRowOfALargerProduct) {
  const at::Tensor left = matrix(101, 700, 1, at::kFloat), right = matrix(700, 150, 2, at::kFloat);
  const at::Tensor whole = stored(left, right);
  for (const std::int64_t row : {0, 11, 12, 50, 100}) {
    EXPECT_TRUE(stored(left.narrow(0, row, 1), right)[0].equal(whole[row])) << row;
  }
  EXPECT_TRUE(stored(left.narrow(0, 7, 30), right).equal(whole.narrow(0, 7, 30)));
}

// Values whose sums are exact in any order.
TEST(MatrixProduct, Bf16PairsGiveTheProduct) {
  if (!ops::detail::has_bf16_dot()) GTEST_SKIP() << "this processor has no bf16 dot product";
  for (const Sizes& s : {Sizes{1, 1, 1}, Sizes{13, 2, 31}, Sizes{37, 33, 70}, Sizes{40, 701, 33}}) {
    const auto whole = [](std::int64_t rows, std::int64_t columns, std::int64_t step) {
      return ((torch::arange(rows * columns) * step) % 11 - 5)
          .view({rows, columns})
          .to(at::kBFloat16);
    };
    for (const bool left_by_columns : {false, true}) {
      for (const bool right_by_columns : {false, true}) {
        at::Tensor left = whole(s.M, s.K, 7), right = whole(s.K, s.N, 3);
        if (left_by_columns) left = left.t().contiguous().t();
        if (right_by_columns) right = right.t().contiguous().t();
        const at::Tensor out = torch::full({s.M, s.N}, -7.0);
        ops::detail::run_product_task({.left = ops::view_of(left),
                                       .right = ops::view_of(right),
                                       .epilogue = {.out = out.data_ptr(), .stride = s.N},
                                       .row_end = s.M,
                                       .column_end = s.N,
                                       .depth = std::min<std::int64_t>(ops::detail::kMaxDepth, s.K),
                                       .rows = 3 * ops::detail::tile_shape().rows,
                                       .pairs = true});
        EXPECT_TRUE(out.equal(left.to(at::kFloat).matmul(right.to(at::kFloat))))
            << s.text() << left_by_columns << right_by_columns;
      }
    }
  }
}

at::Tensor sigmoid_f64(const at::Tensor& x) { return 1 / (1 + x.neg().exp()); }
at::Tensor gelu_f64(const at::Tensor& x) {
  return 0.5 * x * (1 + (std::sqrt(2 / M_PI) * (x + 0.044715 * x.pow(3))).tanh());
}
at::Tensor gelu_derivative_f64(const at::Tensor& x) {
  const at::Tensor z = std::sqrt(2 / M_PI) * (x + 0.044715 * x.pow(3));
  const at::Tensor slope = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x.square());
  return 0.5 * (1 + z.tanh()) + 0.5 * x * (1 - z.tanh().square()) * slope;
}
at::Tensor silu_f64(const at::Tensor& x) { return x * sigmoid_f64(x); }
at::Tensor silu_derivative_f64(const at::Tensor& x) {
  return sigmoid_f64(x) * (1 + x * (1 - sigmoid_f64(x)));
}

// Of an activation in f32, as a share of its argument: exp is within 2 ulp, a handful of roundings
// follow.
constexpr double kActivationTolerance = 8 * 0x1p-24;

class Epilogues : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  // |actual - expected| <= kActivationTolerance x size, and the rounding to the dtype.
  void expect_near(const at::Tensor& actual, const at::Tensor& expected, const at::Tensor& size,
                   const char* what) const {
    const double rounding = GetParam() == at::kFloat ? 0 : 0x1p-8;  // half of a bf16's last bit
    const at::Tensor allowed = kActivationTolerance * size + rounding * expected.abs();
    EXPECT_TRUE((actual.to(at::kDouble) - expected).abs().le(allowed).all().item<bool>()) << what;
  }
  Result of(Kind kind, const at::Tensor& bias_N = {}) const {
    return run(left_, right_, kind, first_in_, second_in_, bias_N, first_in_);
  }
  at::Tensor made(std::uint64_t stream, double scale) const {
    return (normal({27, 75}, stream) * scale).to(GetParam());
  }

  const testing::Bf16DotProducts never_{false};  // its sums are pairs
  at::Tensor left_ = matrix(27, 20, 1, GetParam());
  at::Tensor right_ = matrix(20, 75, 2, GetParam());
  at::Tensor first_in_ = made(3, 4);
  at::Tensor second_in_ = made(4, 1);
  at::Tensor bias_ = normal({75}, 5).to(GetParam());
  at::Tensor p_ = chains(left_, right_);  // the exact sums, f32
};

INSTANTIATE_TEST_SUITE_P(MatrixProduct, Epilogues, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) { return std::string(c10::toString(test.param)); });

TEST_P(Epilogues, AreTheirFormulas) {
  const at::Tensor p = p_.to(at::kDouble), sum = p_ + bias_.to(at::kFloat);  // one f32 rounding
  const at::Tensor first = first_in_.to(at::kDouble), second = second_in_.to(at::kDouble);
  EXPECT_TRUE(of(Kind::kStore, bias_).out.equal(sum.to(GetParam())));

  const auto size = [](const at::Tensor& x) { return x.abs().clamp_min(1); };
  const Result with_gelu = of(Kind::kGelu, bias_);
  EXPECT_TRUE(with_gelu.second_out.equal(sum.to(GetParam())));
  EXPECT_TRUE(of(Kind::kGelu).second_out.equal(p_.to(GetParam())));
  // Activations are those of the value as it is stored, so that they can be computed again.
  const at::Tensor stored_sum = sum.to(GetParam()).to(at::kDouble);
  const at::Tensor stored_p = p_.to(GetParam()).to(at::kDouble);
  expect_near(with_gelu.out, gelu_f64(stored_sum), size(sum), "gelu");
  const at::Tensor all = size(p) * size(first);
  expect_near(of(Kind::kGeluGradient).out, p * gelu_derivative_f64(first), all, "gelu's gradient");

  const Result with_swiglu = of(Kind::kSwiglu);
  EXPECT_TRUE(with_swiglu.second_out.equal(p_.to(GetParam())));
  expect_near(with_swiglu.out, silu_f64(first) * stored_p, all, "swiglu");
  const Result gradient = of(Kind::kSwigluGradient);
  expect_near(gradient.out, p * second * silu_derivative_f64(first), all * size(second), "gate");
  expect_near(gradient.second_out, p * silu_f64(first), all, "up");
}

// The addition comes after the product, which is not begun with what is there.
TEST_P(Epilogues, AddAddsTheWholeProduct) {
  const at::Tensor before = normal({27, 75}, 6).to(at::kFloat) * 100;
  const at::Tensor out = run(left_, right_, Kind::kAdd, before, before, {}, before).out;
  EXPECT_TRUE(out.equal(before + p_));
}

// An activation's whole range: p is the value itself.
TEST(MatrixProduct, ActivationsAreAccurateEverywhere) {
  const at::Tensor x = torch::arange(-120.0, 120.0, 1.0 / 64, at::kFloat).unsqueeze(0);
  const at::Tensor one = torch::ones({1, 1});
  const auto epilogue = [&](Kind kind, const at::Tensor& left, const at::Tensor& right) {
    return run(left, right, kind, x, torch::ones_like(x), {}, x).out.to(at::kDouble);
  };
  const at::Tensor wide = x.to(at::kDouble);
  const auto near = [&](const at::Tensor& actual, const at::Tensor& expected, const char* what) {
    const at::Tensor allowed = kActivationTolerance * wide.abs().clamp_min(1);
    EXPECT_TRUE((actual - expected).abs().le(allowed).all().item<bool>()) << what;
  };
  const at::Tensor ones = torch::ones_like(x);
  near(epilogue(Kind::kGelu, one, x), gelu_f64(wide), "gelu");
  near(epilogue(Kind::kGeluGradient, one, ones), gelu_derivative_f64(wide), "gelu'");
  near(epilogue(Kind::kSwiglu, one, ones), silu_f64(wide), "silu");
  near(epilogue(Kind::kSwigluGradient, one, ones), silu_derivative_f64(wide), "silu'");
}

TEST(MatrixProduct, NoVectorUnitsChangeABit) {
  const testing::Bf16DotProducts never(false);  // its sums are pairs
  const auto all_kinds = [] {
    testing::Tensors results;
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor left = matrix(61, 530, 1, dtype, true), right = matrix(530, 75, 2, dtype);
      const at::Tensor first = normal({61, 75}, 3).to(dtype), bias = normal({75}, 4).to(dtype);
      for (const Kind kind : {Kind::kStore, Kind::kAdd, Kind::kGelu, Kind::kGeluGradient,
                              Kind::kSwiglu, Kind::kSwigluGradient}) {
        if (kind == Kind::kAdd && dtype != at::kFloat) continue;
        const Result result = run(left, right, kind, first, first, bias, first);
        results.insert(results.end(), {result.out, result.second_out});
      }
      results.push_back(torch::ones({75}));
      ops::add_column_sums(ops::view_of(right), results.back().data_ptr<float>());
    }
    return results;
  };
  const testing::Tensors expected = all_kinds();
  int sets = 0;
  for (const std::int64_t target : testing::VectorUnits::all()) {
    if (!testing::VectorUnits::fuses(target)) continue;
    const testing::VectorUnits units(target);
    EXPECT_TRUE(testing::same_bits(all_kinds(), expected)) << testing::VectorUnits::name(target);
    ++sets;
  }
  EXPECT_GE(sets, 1);
}

TEST(MatrixProduct, ColumnSumsAreSumsOfBlocksInOrder) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t rows : {1, 63, 64, 65, 200}) {
      const at::Tensor values = matrix(rows, 277, 7, dtype), wide = values.to(at::kFloat);
      at::Tensor sums = normal({277}, 8).to(at::kFloat), expected = sums.clone();
      ops::add_column_sums(ops::view_of(values), sums.data_ptr<float>());
      for (std::int64_t block = 0; block < rows; block += 64) {
        at::Tensor sum = torch::zeros({277});
        for (std::int64_t r = block; r < std::min<std::int64_t>(rows, block + 64); ++r)
          sum += wide[r];
        expected += sum;
      }
      EXPECT_TRUE(sums.equal(expected)) << rows << " rows of " << dtype;
    }
  }
}

TEST(MatrixProduct, RefusesDimsThatDoNotFit) {
  const at::Tensor a = torch::ones({2, 3}), b = torch::ones({4, 2});
  EXPECT_THROW(stored(a, b), InternalError);
}

// Some thin, some of many tasks, by rows and by columns, on any number of threads.
TEST(MatrixProducts, HaveTheBitsOfEachByItself) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    std::vector<at::Tensor> lefts, rights, expected;
    for (const Sizes& s : kSizes) {
      const auto stream = static_cast<std::uint64_t>(lefts.size());
      for (const bool by_columns : {false, true}) {
        lefts.push_back(matrix(s.M, s.K, stream, dtype));
        rights.push_back(matrix(s.K, s.N, 50 + stream, dtype, by_columns));
        expected.push_back(torch::empty({s.M, s.N}));
        ops::matrix_product(ops::view_of(lefts.back()), ops::view_of(rights.back()),
                            {.out = expected.back().data_ptr(), .stride = s.N});
      }
    }
    for (const int threads : {1, 2, 3}) {
      const testing::ComputeThreads compute_threads(threads);
      std::vector<at::Tensor> outs;
      std::vector<ops::Product> products;
      for (std::size_t i = 0; i < lefts.size(); ++i) {
        outs.push_back(torch::empty(expected[i].sizes()));
        products.push_back({ops::view_of(lefts[i]),
                            ops::view_of(rights[i]),
                            {.out = outs[i].data_ptr(), .stride = outs[i].size(1)}});
      }
      ops::matrix_products(products);
      for (std::size_t i = 0; i < outs.size(); ++i) {
        EXPECT_TRUE(outs[i].equal(expected[i])) << i << " on " << threads;
      }
    }
  }
  ops::matrix_products({});
}

}  // namespace
}  // namespace trireme
