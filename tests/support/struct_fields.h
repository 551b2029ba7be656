// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Structs by their fields, however many they have: arbitrary ones, and whether two are the same. A
// field that is added is seen without a change here, so that no test forgets one.
//
//   const auto message = *arbitrary_struct<Registration>();
//   RC_ASSERT(same_fields(decode(encode(message)), message));
//
// For aggregates without bases of up to 15 fields: numbers, enums, text, optionals, lists and pairs
// of such, and other aggregates.
#pragma once

#include <rapidcheck.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace trireme::testing {
namespace detail {

struct AnyField {
  template <class T>
  operator T() const;  // only ever asked whether it is there
};

template <class T, std::size_t... I>
constexpr bool takes(std::index_sequence<I...>) {
  return requires { T{(static_cast<void>(I), AnyField{})...}; };
}
template <class T, std::size_t N = 15>
constexpr std::size_t count_fields() {
  if constexpr (takes<T>(std::make_index_sequence<N>())) {
    return N;
  } else {
    return count_fields<T, N - 1>();
  }
}

}  // namespace detail

// References to all fields.
template <class T>
auto fields_of(T& t) {
  constexpr std::size_t n = detail::count_fields<std::remove_const_t<T>>();
  if constexpr (n == 1) {
    auto& [a] = t;
    return std::tie(a);
  } else if constexpr (n == 2) {
    auto& [a, b] = t;
    return std::tie(a, b);
  } else if constexpr (n == 3) {
    auto& [a, b, c] = t;
    return std::tie(a, b, c);
  } else if constexpr (n == 4) {
    auto& [a, b, c, d] = t;
    return std::tie(a, b, c, d);
  } else if constexpr (n == 5) {
    auto& [a, b, c, d, e] = t;
    return std::tie(a, b, c, d, e);
  } else if constexpr (n == 6) {
    auto& [a, b, c, d, e, f] = t;
    return std::tie(a, b, c, d, e, f);
  } else if constexpr (n == 7) {
    auto& [a, b, c, d, e, f, g] = t;
    return std::tie(a, b, c, d, e, f, g);
  } else if constexpr (n == 8) {
    auto& [a, b, c, d, e, f, g, h] = t;
    return std::tie(a, b, c, d, e, f, g, h);
  } else if constexpr (n == 9) {
    auto& [a, b, c, d, e, f, g, h, i] = t;
    return std::tie(a, b, c, d, e, f, g, h, i);
  } else if constexpr (n == 10) {
    auto& [a, b, c, d, e, f, g, h, i, j] = t;
    return std::tie(a, b, c, d, e, f, g, h, i, j);
  } else if constexpr (n == 11) {
    auto& [a, b, c, d, e, f, g, h, i, j, k] = t;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k);
  } else if constexpr (n == 12) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l] = t;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l);
  } else if constexpr (n == 13) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m] = t;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m);
  } else if constexpr (n == 14) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o] = t;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o);
  } else {
    static_assert(n == 15, "more fields than fields_of() knows");
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p] = t;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p);
  }
}

namespace detail {

template <class T>
void set_arbitrary(T& value);
template <class T>
void set_arbitrary(std::vector<T>& values) {
  values.resize(*rc::gen::inRange<std::size_t>(0, 4));
  for (T& value : values) set_arbitrary(value);
}
template <class T>
void set_arbitrary(std::optional<T>& value) {
  if (*rc::gen::arbitrary<bool>()) set_arbitrary(value.emplace());
}
template <class A, class B>
void set_arbitrary(std::pair<A, B>& value) {
  set_arbitrary(value.first);
  set_arbitrary(value.second);
}
template <class T>
void set_arbitrary(T& value) {
  if constexpr (std::is_enum_v<T>) {
    value = static_cast<T>(*rc::gen::inRange(0, 4));
  } else if constexpr (std::is_integral_v<T>) {
    // Of all sizes, whatever the size of the case.
    value = *rc::gen::resize(rc::kNominalSize, rc::gen::arbitrary<T>());
  } else if constexpr (std::is_floating_point_v<T> || std::is_same_v<T, std::string>) {
    value = *rc::gen::arbitrary<T>();
  } else {
    std::apply([](auto&... fields) { (set_arbitrary(fields), ...); }, fields_of(value));
  }
}

template <class T>
bool same(const T& left, const T& right);
template <class T>
bool same(const std::vector<T>& left, const std::vector<T>& right) {
  bool all = left.size() == right.size();
  for (std::size_t i = 0; all && i < left.size(); ++i) all = same(left[i], right[i]);
  return all;
}
template <class T>
bool same(const std::optional<T>& left, const std::optional<T>& right) {
  return left.has_value() == right.has_value() && (!left || same(*left, *right));
}
template <class A, class B>
bool same(const std::pair<A, B>& left, const std::pair<A, B>& right) {
  return same(left.first, right.first) && same(left.second, right.second);
}
template <class T>
bool same(const T& left, const T& right) {
  if constexpr (std::is_same_v<T, double>) {
    return std::bit_cast<std::uint64_t>(left) == std::bit_cast<std::uint64_t>(right);
  } else if constexpr (std::is_scalar_v<T> || std::is_same_v<T, std::string>) {
    return left == right;
  } else {
    const auto fields = fields_of(left), others = fields_of(right);
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return (same(std::get<I>(fields), std::get<I>(others)) && ...);
    }
    (std::make_index_sequence<std::tuple_size_v<decltype(fields)>>());
  }
}

}  // namespace detail

template <class T>
rc::Gen<T> arbitrary_struct() {
  return rc::gen::exec([] {
    T value;
    detail::set_arbitrary(value);
    return value;
  });
}

// Numbers bit for bit.
template <class T>
bool same_fields(const T& left, const T& right) {
  return detail::same(left, right);
}

}  // namespace trireme::testing
