/* Prints the bytes of stack that a run takes: the memory below the stack pointer is painted before and read after. */
#include <stdint.h>
#include <stdio.h>
#include MODEL_HEADER

#define PAINTED 65536

#define main selftest
#include "main.c"
#undef main

#if defined(__x86_64__)
#define STACK_POINTER "mov %%rsp, %0"
#elif defined(__riscv)
#define STACK_POINTER "mv %0, sp"
#else
#define STACK_POINTER "mov %0, sp"
#endif

int main(void)
{
    volatile unsigned char *stack;
    long i;
    INPUTS inputs;
    OUTPUTS outputs;
    unsigned char *workspace = aligned(memory, GUARD);
    SET_INPUTS;
    SET_OUTPUTS;
    printf("begin\n"); /* what libraries set up at their first use is set up now */
    __asm__ volatile(STACK_POINTER : "=r"(stack));
    for (i = 1; i <= PAINTED; i++) {
        stack[-i] = 0xA5;
    }
    RUN(&inputs, &outputs, workspace);
    for (i = PAINTED; i > 0 && stack[-i] == 0xA5; i--) {
    }
    printf("stack %ld\n", i);
    return 0;
}
