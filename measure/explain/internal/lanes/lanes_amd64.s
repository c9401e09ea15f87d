#include "textflag.h"

// SHA-512's compression function of FIPS 180-4, section 6.4.2, for eight chains
// at once: lane i of each register belongs to chain i.
//
//	Z0–Z7    a to h
//	Z8–Z12   temporaries
//	Z16–Z31  the message schedule: sixteen words, of which each is replaced by
//	         the word sixteen rounds later once it is used
//
// Instead of moving a to h along, each round names the registers one place on.
// VPTERNLOGQ's constants are truth tables: 0x96 is x^y^z, 0xca is Ch, 0xe8 is Maj.

// ROUND is step 3 of section 6.4.2, for an h that K and W were added to.
#define ROUND(a, b, c, d, e, f, g, h) \
	VMOVDQA64  e, Z8; \
	VPTERNLOGQ $0xca, g, f, Z8; /* Ch(e,f,g) */ \
	VPADDQ     Z8, h, h; \
	VPRORQ     $14, e, Z9; \
	VPRORQ     $18, e, Z10; \
	VPRORQ     $41, e, Z11; \
	VPTERNLOGQ $0x96, Z11, Z10, Z9; /* Σ1(e) */ \
	VPADDQ     Z9, h, h; /* T1 = h + Σ1(e) + Ch(e,f,g) + K + W */ \
	VPADDQ     h, d, d; /* e = d + T1 */ \
	VMOVDQA64  a, Z12; \
	VPTERNLOGQ $0xe8, c, b, Z12; /* Maj(a,b,c) */ \
	VPRORQ     $28, a, Z9; \
	VPRORQ     $34, a, Z10; \
	VPRORQ     $39, a, Z11; \
	VPTERNLOGQ $0x96, Z11, Z10, Z9; /* Σ0(a) */ \
	VPADDQ     Z12, Z9, Z9; /* T2 = Σ0(a) + Maj(a,b,c) */ \
	VPADDQ     Z9, h, h /* a = T1 + T2 */

// MESSAGE is ROUND with W in w, and K at index i.
#define MESSAGE(i, w, a, b, c, d, e, f, g, h) \
	VPADDQ      w, h, h; \
	VPADDQ.BCST (8*i)(DX), h, h; \
	ROUND(a, b, c, d, e, f, g, h)

// CONSTANT is ROUND with K + W, the same in all lanes, at index i.
#define CONSTANT(i, a, b, c, d, e, f, g, h) \
	VPADDQ.BCST (8*i)(DX), h, h; \
	ROUND(a, b, c, d, e, f, g, h)

// SCHEDULE is step 1 of section 6.4.2, sixteen words on:
// W[t] = W[t-16] + σ0(W[t-15]) + W[t-7] + σ1(W[t-2]).
#define SCHEDULE(w16, w15, w7, w2) \
	VPRORQ     $1, w15, Z9; \
	VPRORQ     $8, w15, Z10; \
	VPSRLQ     $7, w15, Z11; \
	VPTERNLOGQ $0x96, Z11, Z10, Z9; /* σ0 */ \
	VPADDQ     w7, w16, w16; \
	VPADDQ     Z9, w16, w16; \
	VPRORQ     $19, w2, Z9; \
	VPRORQ     $61, w2, Z10; \
	VPSRLQ     $6, w2, Z11; \
	VPTERNLOGQ $0x96, Z11, Z10, Z9; /* σ1 */ \
	VPADDQ     Z9, w16, w16

#define LOAD(p) \
	VMOVDQU64 (64*0)(p), Z0; \
	VMOVDQU64 (64*1)(p), Z1; \
	VMOVDQU64 (64*2)(p), Z2; \
	VMOVDQU64 (64*3)(p), Z3; \
	VMOVDQU64 (64*4)(p), Z4; \
	VMOVDQU64 (64*5)(p), Z5; \
	VMOVDQU64 (64*6)(p), Z6; \
	VMOVDQU64 (64*7)(p), Z7

// STORE is step 4 of section 6.4.2: the state before is added.
#define STORE(p) \
	VPADDQ    (64*0)(p), Z0, Z0; \
	VMOVDQU64 Z0, (64*0)(p); \
	VPADDQ    (64*1)(p), Z1, Z1; \
	VMOVDQU64 Z1, (64*1)(p); \
	VPADDQ    (64*2)(p), Z2, Z2; \
	VMOVDQU64 Z2, (64*2)(p); \
	VPADDQ    (64*3)(p), Z3, Z3; \
	VMOVDQU64 Z3, (64*3)(p); \
	VPADDQ    (64*4)(p), Z4, Z4; \
	VMOVDQU64 Z4, (64*4)(p); \
	VPADDQ    (64*5)(p), Z5, Z5; \
	VMOVDQU64 Z5, (64*5)(p); \
	VPADDQ    (64*6)(p), Z6, Z6; \
	VMOVDQU64 Z6, (64*6)(p); \
	VPADDQ    (64*7)(p), Z7, Z7; \
	VMOVDQU64 Z7, (64*7)(p)

// func compress(state *state, block *block, k *[80]uint64)
TEXT ·compress(SB), NOSPLIT, $0-24
	MOVQ state+0(FP), DI
	MOVQ block+8(FP), SI
	MOVQ k+16(FP), DX
	LOAD(DI) // step 2: a to h
	VMOVDQU64 (64*0)(SI), Z16
	VMOVDQU64 (64*1)(SI), Z17
	VMOVDQU64 (64*2)(SI), Z18
	VMOVDQU64 (64*3)(SI), Z19
	VMOVDQU64 (64*4)(SI), Z20
	VMOVDQU64 (64*5)(SI), Z21
	VMOVDQU64 (64*6)(SI), Z22
	VMOVDQU64 (64*7)(SI), Z23
	VMOVDQU64 (64*8)(SI), Z24
	VMOVDQU64 (64*9)(SI), Z25
	VMOVDQU64 (64*10)(SI), Z26
	VMOVDQU64 (64*11)(SI), Z27
	VMOVDQU64 (64*12)(SI), Z28
	VMOVDQU64 (64*13)(SI), Z29
	VMOVDQU64 (64*14)(SI), Z30
	VMOVDQU64 (64*15)(SI), Z31

	// Rounds 0 to 63, and the schedule for 16 to 79.
	MOVQ $4, CX

scheduled:
	MESSAGE(0, Z16, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	SCHEDULE(Z16, Z17, Z25, Z30)
	MESSAGE(1, Z17, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6)
	SCHEDULE(Z17, Z18, Z26, Z31)
	MESSAGE(2, Z18, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5)
	SCHEDULE(Z18, Z19, Z27, Z16)
	MESSAGE(3, Z19, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4)
	SCHEDULE(Z19, Z20, Z28, Z17)
	MESSAGE(4, Z20, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3)
	SCHEDULE(Z20, Z21, Z29, Z18)
	MESSAGE(5, Z21, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2)
	SCHEDULE(Z21, Z22, Z30, Z19)
	MESSAGE(6, Z22, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1)
	SCHEDULE(Z22, Z23, Z31, Z20)
	MESSAGE(7, Z23, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0)
	SCHEDULE(Z23, Z24, Z16, Z21)
	MESSAGE(8, Z24, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	SCHEDULE(Z24, Z25, Z17, Z22)
	MESSAGE(9, Z25, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6)
	SCHEDULE(Z25, Z26, Z18, Z23)
	MESSAGE(10, Z26, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5)
	SCHEDULE(Z26, Z27, Z19, Z24)
	MESSAGE(11, Z27, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4)
	SCHEDULE(Z27, Z28, Z20, Z25)
	MESSAGE(12, Z28, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3)
	SCHEDULE(Z28, Z29, Z21, Z26)
	MESSAGE(13, Z29, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2)
	SCHEDULE(Z29, Z30, Z22, Z27)
	MESSAGE(14, Z30, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1)
	SCHEDULE(Z30, Z31, Z23, Z28)
	MESSAGE(15, Z31, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0)
	SCHEDULE(Z31, Z16, Z24, Z29)
	ADDQ $128, DX
	DECQ CX
	JNZ  scheduled

	// Rounds 64 to 79.
	MESSAGE(0, Z16, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	MESSAGE(1, Z17, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6)
	MESSAGE(2, Z18, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5)
	MESSAGE(3, Z19, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4)
	MESSAGE(4, Z20, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3)
	MESSAGE(5, Z21, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2)
	MESSAGE(6, Z22, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1)
	MESSAGE(7, Z23, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0)
	MESSAGE(8, Z24, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	MESSAGE(9, Z25, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6)
	MESSAGE(10, Z26, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5)
	MESSAGE(11, Z27, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4)
	MESSAGE(12, Z28, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3)
	MESSAGE(13, Z29, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2)
	MESSAGE(14, Z30, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1)
	MESSAGE(15, Z31, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0)
	STORE(DI)
	VZEROUPPER
	RET

// func compressConstant(state *state, kw *[80]uint64)
TEXT ·compressConstant(SB), NOSPLIT, $0-16
	MOVQ state+0(FP), DI
	MOVQ kw+8(FP), DX
	LOAD(DI) // step 2: a to h
	MOVQ $10, CX

constant:
	CONSTANT(0, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	CONSTANT(1, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6)
	CONSTANT(2, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5)
	CONSTANT(3, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4)
	CONSTANT(4, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3)
	CONSTANT(5, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2)
	CONSTANT(6, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1)
	CONSTANT(7, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0)
	ADDQ $64, DX
	DECQ CX
	JNZ  constant
	STORE(DI)
	VZEROUPPER
	RET
