package Qpsmtpd::Command;

# How a command's arguments are read: parse($command, $line, $code, $qp). $line is what stands behind the command. $code, where a hook
# such as mail_parse gave one, reads it instead and is called as a method: $self->$code($command, $line). Gives OK and, for MAIL and
# RCPT, the path and the parameters as pairs (keywords in lower case), else the words; or DENY and a text.

use strict;
use warnings;

use Qpsmtpd::Constants;
use Gatepost::Log;

sub new { return bless {}, shift }

sub parse {
    my ($self, $command, $line, $code) = @_;
    $self = $self->new unless ref $self;
    $command = lc $command;
    $line //= '';
    my @read = $code ? eval { $self->$code($command, $line) } : $self->_read($command, $line);
    if ($@ && $code) {
        $self->log(LOGERROR, "parser of $command died: $@");
        return (DENY, $line);
    }
    return @read;
}

my %opens = (mail => 'from', rcpt => 'to');

sub _read {
    my ($self, $command, $line) = @_;
    my $opens = $opens{$command} or return (OK, split ' ', $line);
    my ($path, $rest) = $line =~ /\A\s*$opens:\s*(<(?:[^<>"]|"(?:[^"\\]|\\.)*")*>|[^\s<>]*)\s*(.*?)\s*\z/is
        or return (DENY, 'Syntax error in command');
    return (OK, $path, map { my ($key, $value) = split /=/, $_, 2; (lc $key => $value) } split ' ', $rest);
}

sub log {
    my ($self, $level, @message) = @_;
    Gatepost::Log::line(undef, $level, grep { defined } @message);
    return;
}

1;
