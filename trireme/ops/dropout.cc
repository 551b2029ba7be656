// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/dropout.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kColumns = 8;  // that a block of random bits serves, 16 each
constexpr double kUnits = 65536;

std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

// Of one row, a factor for each element.
class RowMask {
 public:
  RowMask(std::uint32_t units, std::uint64_t seed, std::uint32_t place)
      : units_(units),
        factor_(static_cast<float>(kUnits / (kUnits - units))),
        key_{low(seed), high(seed)},
        place_(place) {}

  void fill(std::int64_t row, std::int64_t columns, float* factors) const {
    const auto number = static_cast<std::uint64_t>(row);
    for (std::int64_t c = 0; c < columns; c += kColumns) {
      const std::array<std::uint32_t, 4> bits = philox4x32(
          {low(number), high(number), static_cast<std::uint32_t>(c / kColumns), place_}, key_);
      const std::int64_t end = std::min(kColumns, columns - c);
      for (std::int64_t i = 0; i < end; ++i) {
        const std::uint32_t word = bits[static_cast<std::size_t>(i / 2)];
        const std::uint32_t lane = i % 2 == 0 ? word & 0xFFFF : word >> 16;
        factors[c + i] = lane < units_ ? 0.0F : factor_;
      }
    }
  }

 private:
  std::uint32_t units_;
  float factor_;
  std::array<std::uint32_t, 2> key_;
  std::uint32_t place_;
};

template <class T>
void multiply(const T* x, T* out, const std::int64_t* rows, std::int64_t N, std::int64_t C,
              const RowMask& mask) {
  constexpr std::int64_t kGrainElements = 8192;
  at::parallel_for(0, N, std::max<std::int64_t>(1, kGrainElements / C),
                   [&](std::int64_t begin, std::int64_t end) {
                     std::vector<float> factors(static_cast<std::size_t>(C));
                     for (std::int64_t n = begin; n < end; ++n) {
                       mask.fill(rows[n], C, factors.data());
                       for (std::int64_t c = 0; c < C; ++c) {
                         // A dropped element is zero even where it is not finite.
                         const float factor = factors[static_cast<std::size_t>(c)];
                         out[n * C + c] =
                             factor == 0.0F ? T(0) : static_cast<T>(x[n * C + c] * factor);
                       }
                     }
                   });
}

at::Tensor dropped(const at::Tensor& given, const at::Tensor& rows, const RowMask& mask) {
  if (!given.is_cpu()) return dropped(given.cpu(), rows, mask).to(given.device());
  const at::Tensor x = given.contiguous();
  const at::Tensor out = at::empty(x.sizes(), x.options().requires_grad(false));
  const std::int64_t C = x.size(-1), N = rows.numel();
  const std::int64_t* numbers = rows.data_ptr<std::int64_t>();
  switch (x.scalar_type()) {
    case at::kFloat:
      multiply(x.data_ptr<float>(), out.data_ptr<float>(), numbers, N, C, mask);
      break;
    case at::kBFloat16:
      multiply(x.data_ptr<at::BFloat16>(), out.data_ptr<at::BFloat16>(), numbers, N, C, mask);
      break;
    default:
      multiply(x.data_ptr<double>(), out.data_ptr<double>(), numbers, N, C, mask);
  }
  return out;
}

struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& rows,
                            std::int64_t units, std::int64_t seed, std::int64_t place) {
    const TimedPart part("dropout");
    context->save_for_backward({rows});
    context->saved_data["units"] = units;
    context->saved_data["seed"] = seed;
    context->saved_data["place"] = place;
    return dropped(x, rows, mask_of(units, seed, place));
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("dropout");
    const auto number = [&](const char* name) { return context->saved_data[name].toInt(); };
    const RowMask mask = mask_of(number("units"), number("seed"), number("place"));
    return {dropped(gradients[0], context->get_saved_variables()[0], mask), at::Tensor(),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }

  static RowMask mask_of(std::int64_t units, std::int64_t seed, std::int64_t place) {
    return {static_cast<std::uint32_t>(units), static_cast<std::uint64_t>(seed),
            static_cast<std::uint32_t>(place)};
  }
};

void check(const at::Tensor& x, const DropoutMask& mask) {
  const auto dtype = x.scalar_type();
  const bool known = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble;
  const bool fits = x.dim() >= 1 && x.size(-1) > 0 && mask.rows_N.defined() &&
                    mask.rows_N.scalar_type() == at::kLong &&
                    mask.rows_N.numel() * x.size(-1) == x.numel();
  if (!known || !fits) {
    throw_error<ShapeError>(
        "dropout needs x [..., C] of f32, bf16 or f64 and an i64 number for each of its rows; got "
        "{} [{}] and {}",
        c10::toString(dtype), fmt::join(x.sizes(), ", "),
        mask.rows_N.defined() ? fmt::format("{} [{}]", c10::toString(mask.rows_N.scalar_type()),
                                            fmt::join(mask.rows_N.sizes(), ", "))
                              : "none");
  }
  if (!(mask.share >= 0 && mask.share < 1)) {
    throw_error<ShapeError>("dropout of a share of {}: 0 or above, and below 1", mask.share);
  }
}

}  // namespace

at::Tensor dropout(const at::Tensor& x, const DropoutMask& mask) {
  check(x, mask);
  const auto units = std::min<std::int64_t>(std::lround(mask.share * kUnits), 65535);
  if (units == 0) return x;
  return Dropout::apply(x, mask.rows_N.cpu().contiguous(), units,
                        static_cast<std::int64_t>(mask.seed), std::int64_t{mask.place});
}

}  // namespace trireme::ops
